// Ternary weights in the tiles that BitNet's look-up-table kernels read, TL1 and TL2.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edgequant {

// Tile of one kernel: `bm` rows by `bk` columns, in runs of `bmm` rows.
struct LutTile {
  size_t bm, bk, bmm;
};

// Bytes of rows x cols weights, TL2's padding included. Throw Error where the tile does not divide the matrix.
size_t Tl1Bytes(size_t rows, size_t cols, const LutTile& tile);
size_t Tl2Bytes(size_t rows, size_t cols, const LutTile& tile);

// Packs weights -1, 0, 1, row by row; the same errors.
//
// TL1: a pair of columns is 3 a + b + 4 in a nibble, two pairs to a byte, the first on top. Order: tiles of rows, tiles
// of columns, runs of bmm rows, 256 / bmm columns, 16 rows, 4 columns, row.
// TL2, first region: a triple of columns is 9 a + 3 b + c, its magnitude in a nibble; 192 / bmm columns to a run, whose
// 8-byte quarters 1 and 2 are swapped. Second: the triples' signs in 16-bit words, one for 24 columns of rows j and
// j + 16, from the top bit down. Third: columns past a multiple of bk as TL1's pairs, 4 columns to a run of 32 rows.
void PackTl1(const int8_t* w, size_t rows, size_t cols, const LutTile& tile, uint8_t* out);
void UnpackTl1(const uint8_t* packed, size_t rows, size_t cols, const LutTile& tile, int8_t* w);
void PackTl2(const int8_t* w, size_t rows, size_t cols, const LutTile& tile, uint8_t* out);
void UnpackTl2(const uint8_t* packed, size_t rows, size_t cols, const LutTile& tile, int8_t* w);

}  // namespace edgequant
