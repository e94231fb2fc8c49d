// The value maps of a description as tables of signed bytes, made by the compiler. Where bytes stand for halves or
// eighths, the scale takes the factor: a power of two, so nothing is rounded differently.
#pragma once
#include "kernels/cpu/access.h"

namespace edgequant {

// A table of up to 16 values as bytes, doubled until no fraction is left.
struct ByteTable {
  bool ok = true;
  float factor = 1;
  alignas(16) int8_t values[16] = {};
};
constexpr ByteTable ByteTableOf(const Map& map) {
  ByteTable t;
  for (int doubling = 1; doubling <= 4; doubling *= 2) {
    t.ok = true;
    t.factor = 1.0f / float(doubling);
    for (int k = 0; k < 16 && t.ok; ++k) {
      const float v = map.values[k] * float(doubling);
      t.ok = v >= -128 && v <= 127 && v == float(int(v));
      if (t.ok) t.values[k] = int8_t(v);
    }
    if (t.ok) break;
  }
  return t;
}

// The rows of a grid, one after another; moved up already and divided by the shift where there is one.
template <int kCount>
struct GridRows {
  alignas(64) int8_t values[kCount] = {};
};
template <const Block& kB>
constexpr auto GridRowsOf() {
  constexpr GridTable grid = *kB.map.grid;
  GridRows<grid.rows * grid.dim> rows;
  const float up = kB.map.shift, scale = up != 0 ? 1 / up : 1;
  for (int k = 0; k < grid.rows * grid.dim; ++k)
    rows.values[k] = int8_t((float(GridValue(grid, k / grid.dim, k % grid.dim)) + up) * scale);
  return rows;
}
template <const Block& kB>
inline constexpr auto kGridRows = GridRowsOf<kB>();

// The packed rows as two planes of bytes, and how to take their values apart: 8 bytes of weights come from 16-bit rows
// that are repeated to fill 64 bits, byte k of them holding the value's index from bit shifts[k] on.
template <int kCount>
struct GridPlanes {
  static constexpr int kRows = kCount;
  alignas(64) uint8_t low[kCount] = {};
  alignas(64) uint8_t high[kCount] = {};
  alignas(64) uint8_t from[64] = {};    // where the bytes of 64 weights are: a code, plus 64 in the upper plane
  alignas(64) uint8_t shifts[64] = {};
  alignas(64) int8_t values[64] = {};   // by the lower six bits from there, whatever those above the index are
};
template <const Block& kB>
constexpr auto GridPlanesOf() {
  constexpr GridTable grid = *kB.map.grid;
  static_assert(grid.dim * grid.bits <= 16);
  GridPlanes<grid.rows> p;
  for (int r = 0; r < grid.rows; ++r) {
    p.low[r] = uint8_t(grid.packed[r]);
    p.high[r] = uint8_t(grid.packed[r] >> 8);
  }
  const float up = kB.map.shift, scale = up != 0 ? 1 / up : 1;
  for (int k = 0; k < 64; ++k) {
    const int weight = k % 8;
    p.from[k] = uint8_t(k / grid.dim + k % 2 * 64);
    p.shifts[k] = uint8_t(weight % grid.dim * grid.bits + weight / grid.dim * 32);
    p.values[k] = int8_t((float(grid.levels[k & ((1 << grid.bits) - 1)]) + up) * scale);
  }
  return p;
}

// The scale of the bytes that stand for the values of a block.
constexpr Level ScaleOfBytes(const Block& b) {
  Level s = b.scale;
  if (b.map.kind == MapKind::kTable) s.factor *= ByteTableOf(b.map).factor;
  if (b.map.kind == MapKind::kGrid && b.map.shift != 0) s.factor *= b.map.shift;
  return s;
}

}  // namespace edgequant
