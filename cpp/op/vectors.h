// Weights in vectors of 8: QuIP#'s E8P words and AQLM's sums of codebooks.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "op/repack.h"

namespace edgequant {

// All 65536 grid points of E8P at scale 1, 8 numbers each.
const float* E8PPoints();

// rows (a multiple of 16) x cols (of 64) weights from QuIP#'s words, rows * cols / 32 of them: grid point * scale.
void DecodeE8P(const uint64_t* words, size_t rows, size_t cols, float scale, float* out);

// The words of 16-bit codes, row by row.
void PackE8P(const uint16_t* codes, size_t rows, size_t cols, uint64_t* words);

// AQLM: every vector of 8 is the sum of one entry of each codebook, times the row's scale. Codes lie row by row,
// `books` to a vector, in `bits` (8 or 16) bits; codebooks are books x 2^bits x 8 numbers.
struct AqlmView {
  const void* codes;
  int bits;
  size_t books;
  const float* codebooks;
  const float* scales;  // one per row
};
void DecodeAqlm(const AqlmView& q, size_t rows, size_t cols, float* out);
// A copy for products, which decode pieces of rows; codebooks of f16 numbers are kept as such where they are large.
Panel RepackAqlm(const AqlmView& q, size_t rows, size_t cols, const std::string& format);

}  // namespace edgequant
