#include "op/vectors.h"

#include <string.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "core/threads.h"
#include "format/decode.h"
#include "format/e8p.h"
#include "kernels/cpu/aqlm.h"
#include "kernels/cpu/float_products.h"

namespace edgequant {
namespace {

void CheckE8PShape(size_t rows, size_t cols) {
  if (rows % kE8PTileRows != 0 || cols % (8 * kE8PTileVectors) != 0)
    Fail("E8P stores tiles of 16 rows and 64 columns, which do not divide a matrix of ", rows, " x ", cols);
}

void CheckAqlm(const AqlmView& q, size_t cols) {
  if (cols % 8 != 0) Fail("AQLM codes stand for 8 weights, which do not divide rows of ", cols);
  if (q.bits != 8 && q.bits != 16) Fail("AQLM codes have 8 or 16 bits, not ", q.bits);
}

size_t AqlmRowBytes(const AqlmView& q, size_t cols) { return cols / 8 * q.books * size_t(q.bits) / 8; }

// What a panel of AQLM owns.
struct AqlmWeights {
  std::vector<uint8_t> codes, entries;
  std::vector<float> scales;
};

}  // namespace

const float* E8PPoints() {
  static const std::vector<float>& points = *[] {
    auto* p = new std::vector<float>(size_t{65536} * 8);
    for (uint32_t code = 0; code < 65536; ++code) E8PVector(code, p->data() + size_t{code} * 8);
    return p;
  }();
  return points.data();
}

void DecodeE8P(const uint64_t* words, size_t rows, size_t cols, float scale, float* out) {
  CheckE8PShape(rows, cols);
  const float* const points = E8PPoints();
  const size_t vectors = cols / 8;
  ParallelFor(rows / 2, 8, [&](size_t begin, size_t end) {
    for (size_t pair = begin; pair < end; ++pair)
      for (size_t v = 0; v < vectors; v += 2) {
        const uint64_t word = words[E8PPlaceOf(2 * pair, v, vectors).word];
        for (int i = 0; i < 4; ++i) {
          const float* point = points + size_t{E8PCodeOfWord(word, i)} * 8;
          float* to = out + (2 * pair + size_t(i % 2)) * cols + (v + size_t(i / 2)) * 8;
          for (int k = 0; k < 8; ++k) to[k] = point[k] * scale;
        }
      }
  });
}

void PackE8P(const uint16_t* codes, size_t rows, size_t cols, uint64_t* words) {
  CheckE8PShape(rows, cols);
  const size_t vectors = cols / 8;
  ParallelFor(rows / 2, 8, [&](size_t begin, size_t end) {
    for (size_t pair = begin; pair < end; ++pair)
      for (size_t v = 0; v < vectors; v += 2) {
        const uint16_t* top = codes + 2 * pair * vectors + v;
        const uint16_t four[4] = {top[0], top[vectors], top[1], top[vectors + 1]};
        words[E8PPlaceOf(2 * pair, v, vectors).word] = E8PWord(four);
      }
  });
}

void DecodeAqlm(const AqlmView& q, size_t rows, size_t cols, float* out) {
  CheckAqlm(q, cols);
  const size_t row_bytes = AqlmRowBytes(q, cols);
  ParallelFor(rows, 16, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r)
      SumEntries(static_cast<const uint8_t*>(q.codes) + r * row_bytes, q.bits, q.books, FormatId::kF32, q.codebooks,
                 cols / 8, q.scales[r], row_bytes, out + r * cols);
  });
}

Panel RepackAqlm(const AqlmView& q, size_t rows, size_t cols, const std::string& format) {
  CheckAqlm(q, cols);
  const size_t row_bytes = AqlmRowBytes(q, cols), n = (q.books << q.bits) * 8;
  const auto* const codes = static_cast<const uint8_t*>(q.codes);
  auto own = std::make_shared<AqlmWeights>();
  own->codes.assign(codes, codes + rows * row_bytes);
  own->scales.assign(q.scales, q.scales + rows);
  const bool halves = q.bits > 8 && std::all_of(q.codebooks, q.codebooks + n,
                                                [](float v) { return F16ToF32(F16FromF32(v)) == v; });
  const FormatId type = halves ? FormatId::kF16 : FormatId::kF32;
  own->entries.resize(n * (halves ? 2 : 4));
  for (size_t k = 0; k < n; ++k) {
    const uint16_t half = F16FromF32(q.codebooks[k]);
    if (halves) memcpy(&own->entries[2 * k], &half, 2);
    else memcpy(&own->entries[4 * k], &q.codebooks[k], 4);
  }
  FloatWeights floats;
  floats.decode = [own, type, row_bytes, bits = q.bits, books = q.books](size_t row, size_t k, size_t count,
                                                                         float* out) {
    const uint8_t* const from = &own->codes[row * row_bytes + k / 8 * books * size_t(bits) / 8];
    SumEntries(from, bits, books, type, own->entries.data(), count / 8, own->scales[row],
               size_t(kFloatTileColumns) * row_bytes, out);
  };
  Panel panel;
  panel.format = format;
  panel.rows = rows, panel.cols = cols;
  panel.bytes = own->codes.size() + own->entries.size() + own->scales.size() * sizeof(float);
  panel.floats = std::make_shared<const FloatWeights>(std::move(floats));
  return panel;
}

}  // namespace edgequant
