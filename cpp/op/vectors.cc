#include "op/vectors.h"

#include <vector>

#include "core/error.h"
#include "core/threads.h"
#include "format/e8p.h"

namespace edgequant {
namespace {

void CheckE8PShape(size_t rows, size_t cols) {
  if (rows % kE8PTileRows != 0 || cols % (8 * kE8PTileVectors) != 0)
    Fail("E8P stores tiles of 16 rows and 64 columns, which do not divide a matrix of ", rows, " x ", cols);
}

template <class Code>
void DecodeAqlmRows(const AqlmView& q, size_t begin, size_t end, size_t cols, float* out) {
  const auto* codes = static_cast<const Code*>(q.codes);
  const size_t vectors = cols / 8, book = (size_t{1} << q.bits) * 8;
  for (size_t r = begin; r < end; ++r)
    for (size_t v = 0; v < vectors; ++v) {
      const Code* c = codes + (r * vectors + v) * q.books;
      float sum[8] = {};
      for (size_t b = 0; b < q.books; ++b) {
        const float* entry = q.codebooks + b * book + size_t{c[b]} * 8;
        for (int k = 0; k < 8; ++k) sum[k] += entry[k];
      }
      for (int k = 0; k < 8; ++k) out[r * cols + v * 8 + size_t(k)] = sum[k] * q.scales[r];
    }
}

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
  if (cols % 8 != 0) Fail("AQLM codes stand for 8 weights, which do not divide rows of ", cols);
  if (q.bits != 8 && q.bits != 16) Fail("AQLM codes have 8 or 16 bits, not ", q.bits);
  ParallelFor(rows, 16, [&](size_t begin, size_t end) {
    if (q.bits == 8)
      DecodeAqlmRows<uint8_t>(q, begin, end, cols, out);
    else
      DecodeAqlmRows<uint16_t>(q, begin, end, cols, out);
  });
}

}  // namespace edgequant
