// QuIP#'s E8P12: 16-bit codes for vectors of 8 weights, points of the lattice E8 shifted by 1/4.
//
// High byte: one of 256 rows of magnitudes 1/2, 3/2, 5/2. Low byte: signs of weights 0, 2, 4, 6, 1, 3, 5, 7 from bit 0
// on. Where the byte has an odd number of ones, bit 0 is inverted first, and in the end 1/4 is subtracted, else added.
// In rows whose sum is odd the sign of weight 7 is inverted, so that every vector before the shift has an even sum.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/block.h"

namespace edgequant {

constexpr int kE8PRows = 256;

struct E8PGrid {
  uint8_t level[kE8PRows][8] = {};  // magnitude level + 1/2
  bool odd[kE8PRows] = {};          // sum of the row
};

constexpr E8PGrid MakeE8PGrid() {
  E8PGrid g;
  int n = 0;
  for (int v = 0; v < 6561; ++v) {  // squared norm 2 + 2 for each 3/2 + 6 for each 5/2, at most 10
    uint8_t level[8] = {};
    int rest = v, norm = 2, sum = 0;
    for (int k = 7; k >= 0; --k, rest /= 3) {
      level[k] = uint8_t(rest % 3);
      norm += level[k] == 0 ? 0 : level[k] == 1 ? 2 : 6;
      sum += level[k];
    }
    if (norm > 10) continue;
    for (int k = 0; k < 8; ++k) g.level[n][k] = level[k];
    g.odd[n++] = sum % 2 != 0;  // eight halves are even
  }
  // 29 of the vectors with five 3/2: bit 7 - k is set where weight k is one.
  constexpr uint8_t kFives[29] = {0x8f, 0x4f, 0x2f, 0x1f, 0xec, 0xea, 0xe6, 0xe9, 0xe5, 0xe3,
                                  0xdc, 0xda, 0xd6, 0xd9, 0xd5, 0xd3, 0xbc, 0xba, 0xb6, 0xb9,
                                  0xb5, 0x73, 0x7c, 0x7a, 0x76, 0x79, 0x75, 0x37, 0xce};
  for (const uint8_t five : kFives) {
    for (int k = 0; k < 8; ++k) g.level[n][k] = uint8_t(five >> (7 - k) & 1);
    g.odd[n++] = true;
  }
  return g;
}
inline constexpr E8PGrid kE8PGrid = MakeE8PGrid();

constexpr int kE8PSignOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // the weight of each bit

// Bit k negates weight k; whether the weights move downwards.
struct E8PSigns { uint8_t signs; bool down; };
constexpr E8PSigns E8PSignsOf(uint32_t code) {
  uint32_t bits = code & 255;
  const uint32_t parity = uint32_t(__builtin_popcount(bits)) & 1;
  bits ^= parity;
  if (kE8PGrid.odd[code >> 8 & 255]) bits ^= 0x80;
  uint8_t signs = 0;
  for (int b = 0; b < 8; ++b) signs = uint8_t(signs | (bits >> b & 1) << kE8PSignOrder[b]);
  return {signs, parity != 0};
}

// The 8 weights of a code, at scale 1.
inline void E8PVector(uint32_t code, float* out) {
  const E8PSigns s = E8PSignsOf(code);
  for (int k = 0; k < 8; ++k) {
    const float magnitude = float(kE8PGrid.level[code >> 8 & 255][k]) + 0.5f;
    out[k] = (s.signs >> k & 1 ? -magnitude : magnitude) + (s.down ? -0.25f : 0.25f);
  }
}

// QuIP# stores four codes, of rows r and r + 1 and of two neighbouring vectors, in one 64-bit word: row bytes below,
// sign bits above, interleaved by four. Words lie in tiles of 8 pairs of rows x 4 pairs of vectors.
constexpr size_t kE8PTileRows = 16, kE8PTileVectors = 8;
inline uint64_t E8PWord(const uint16_t four[4]) {
  uint64_t word = 0;
  for (int i = 0; i < 4; ++i) {
    word |= uint64_t(four[i] >> 8) << (8 * i);
    for (int b = 0; b < 8; ++b) word |= uint64_t(four[i] >> b & 1) << (32 + 4 * b + i);
  }
  return word;
}
inline uint16_t E8PCodeOfWord(uint64_t word, int i) {
  uint32_t signs = 0;
  for (int b = 0; b < 8; ++b) signs |= uint32_t(word >> (32 + 4 * b + i) & 1) << b;
  return uint16_t((word >> (8 * i) & 255) << 8 | signs);
}
// Index of the word with the code of this row and vector, and the code's place in it.
struct E8PPlace { size_t word; int at; };
inline E8PPlace E8PPlaceOf(size_t row, size_t vector, size_t vectors) {
  const size_t tile = row / kE8PTileRows * (vectors / kE8PTileVectors) + vector / kE8PTileVectors;
  return {(tile * 8 + row / 2 % 8) * 4 + vector / 2 % 4, int(vector % 2 * 2 + row % 2)};
}

// The same codes as rows of a grid, so that what multiplies with grids does so with these: halves, with all signs and
// the shift of 1/4 written out. [d 2][rows 32][signs 32][shifts 4][scales 4]
constexpr GridTable MakeE8PTable() {
  GridTable t{8, kE8PRows, 2, {1, 3, 5}, {}};
  for (int row = 0; row < kE8PRows; ++row)
    for (int k = 0; k < 8; ++k) t.packed[row] = uint16_t(t.packed[row] | kE8PGrid.level[row][k] << 2 * k);
  return t;
}
inline constexpr GridTable kE8PTable = MakeE8PTable();
inline constexpr int kE8PSigns = 34, kE8PShifts = 66;
inline constexpr Block kE8PBlock = {
    256, 74, {Stream(2, 8)}, {MapKind::kGrid, 0, {}, 8, &kE8PTable, Stream(kE8PSigns, 8), .5f, Stream(kE8PShifts, 1)},
    {Number::kF16, 0, 0, 1, 32, -.5f, {Stream(70, 4)}}};

}  // namespace edgequant
