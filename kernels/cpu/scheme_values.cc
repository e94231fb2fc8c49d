#include "kernels/cpu/scheme_values.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace edgequant {

float MinifloatValue(const Scheme& s, int code) {
  const int mantissa_bits = s.bits - 1 - s.exponent_bits, magnitude = code & ((1 << (s.bits - 1)) - 1);
  const int exponent = magnitude >> mantissa_bits, mantissa = magnitude & ((1 << mantissa_bits) - 1);
  const int whole = exponent == 0 ? mantissa : mantissa | 1 << mantissa_bits;
  float v = std::ldexp(float(whole), std::max(exponent, 1) - s.exponent_bias - mantissa_bits);
  if (v > s.highest) v = mantissa == 0 && exponent == (1 << s.exponent_bits) - 1 ? INFINITY : NAN;
  return code >> (s.bits - 1) ? -v : v;
}

namespace {

// The limits are those of the tree: a cell that holds one is where the sum (u - first) * per unit puts it.
void SetCells(int count, CodeValues& v) {
  if (count <= 8 || count > 16) return;
  float limit[16];
  for (int k = 0; k + 1 < count; ++k) limit[k] = v.sorted[k] / 2 + v.sorted[k + 1] / 2;
  const float range = limit[count - 2] - limit[0];
  if (!(range > 1e-30f && range < 1e30f)) return;
  v.cells_per_unit = float(CodeValues::kCells - 2) / range;
  v.first_cell = 1 - limit[0] * v.cells_per_unit;
  std::fill_n(v.cell_limit, CodeValues::kCells, 3e38f);
  for (int k = 0, rank = 0; k < CodeValues::kCells; ++k) {
    v.cell_rank[k] = rank;
    // a limit on the edge of a cell may be rounded to either side
    while (rank + 1 < count && limit[rank] * v.cells_per_unit + v.first_cell < float(k + 1)) {
      const float place = limit[rank] * v.cells_per_unit + v.first_cell, in_cell = place - float(k);
      if (v.cell_limit[k] != 3e38f || in_cell < 1e-3f || in_cell > 1 - 1e-3f) return;
      v.cell_limit[k] = limit[rank++];
    }
  }
  v.in_cells = true;
}

}  // namespace

CodeValues ValuesOf(const Scheme& s, const float* table) {
  CodeValues v;
  v.kind = s.values;
  v.codes = s.codes;
  v.bits = s.bits;
  v.zero = s.zero;
  v.mantissa_bits = s.bits - 1 - s.exponent_bits;
  v.exponent_bias = s.exponent_bias;
  if (s.values == Values::kCodebook || s.values == Values::kGroupTable) return v;
  for (int c = 0; c < s.codes; ++c) {
    if (s.values == Values::kAffine) v.value[c] = float(c) - s.zero;
    else if (s.values == Values::kMinifloat) v.value[c] = MinifloatValue(s, c);
    else v.value[c] = table[c];
  }
  std::vector<int> order;
  for (int c = 0; c < s.codes; ++c)
    if (s.values != Values::kMinifloat || std::isfinite(v.value[c])) order.push_back(c);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return v.value[a] < v.value[b]; });
  int count = 0;
  for (int c : order) {
    if (count > 0 && v.value[c] == v.sorted[count - 1]) continue;  // small floats have two zeros: the first is written
    v.sorted[count] = v.value[c];
    v.code[count++] = c;
  }
  for (int k = count; k < 256; ++k) v.sorted[k] = v.sorted[count - 1], v.code[k] = v.code[count - 1];
  while (1 << v.levels < count) ++v.levels;
  v.levels = std::max(v.levels, 1);
  for (int l = 0; l < v.levels; ++l)
    for (int k = 0; k < 1 << l; ++k) {
      const int width = 1 << (v.levels - l), below = k * width + width / 2 - 1;
      v.limit[l][k] = below + 1 < count ? v.sorted[below] / 2 + v.sorted[below + 1] / 2 : 3e38f;
    }
  SetCells(count, v);
  v.low = v.sorted[0];
  v.high = v.sorted[count - 1];
  v.step = count > 1 ? (v.high - v.low) / float(count - 1) : 1;
  return v;
}

}  // namespace edgequant
