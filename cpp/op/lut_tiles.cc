#include "op/lut_tiles.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/threads.h"

namespace edgequant {
namespace {

constexpr size_t kTailCols = 32, kTailRun = 4, kTailRows = 32;

void CheckTl1(size_t rows, size_t cols, const LutTile& t) {
  if (t.bmm == 0 || t.bmm % 16 != 0 || 256 % t.bmm != 0 || t.bm == 0 || t.bm % t.bmm != 0 || t.bk == 0 ||
      t.bk % (256 / t.bmm) != 0)
    Fail("TL1 has no kernel of ", t.bm, " x ", t.bk, " in runs of ", t.bmm, " rows");
  if (rows % t.bm != 0 || cols % t.bk != 0)
    Fail("TL1 tiles of ", t.bm, " x ", t.bk, " do not divide a matrix of ", rows, " x ", cols);
}
void CheckTl2(size_t rows, size_t cols, const LutTile& t) {
  if (t.bmm != 32 || t.bm == 0 || t.bm % 32 != 0 || t.bk == 0 || t.bk % 24 != 0)
    Fail("TL2 has no kernel of ", t.bm, " x ", t.bk, " in runs of ", t.bmm, " rows");
  if (rows % t.bm != 0 || cols < t.bk || cols % t.bk % kTailCols != 0)
    Fail("TL2 tiles of ", t.bm, " x ", t.bk, " and tails of 32 columns do not divide a matrix of ", rows, " x ", cols);
}

size_t Swapped(size_t row) { return (row / 8 % 4 == 1 ? 2 : row / 8 % 4 == 2 ? 1 : row / 8 % 4) * 8 + row % 8; }

size_t Tl1Place(size_t r, size_t c, size_t cols, const LutTile& t) {
  const size_t run = 256 / t.bmm;
  size_t at = r / t.bm * (cols / t.bk) + c / t.bk;
  at = at * (t.bm / t.bmm) + r % t.bm / t.bmm;
  at = at * (t.bk / run) + c % t.bk / run;
  at = at * (t.bmm / 16) + r % t.bmm / 16;
  at = at * (run / 4) + c % run / 4;
  return at * 16 + r % 16;
}

// Places of TL2's three regions, all for a weight of row r; the tail's columns count from its own first.
struct Tl2Places {
  size_t cols, triples, rows;
  LutTile tile;
  Tl2Places(size_t rows_, size_t cols_, const LutTile& t)
      : cols(cols_), triples(cols_ - cols_ % t.bk), rows(rows_), tile(t) {}
  size_t Run(size_t r, size_t c) const {
    return (r / tile.bm * (triples / tile.bk) + c / tile.bk) * (tile.bm / 32) + r % tile.bm / 32;
  }
  size_t Nibble(size_t r, size_t c) const {
    return (Run(r, c) * (tile.bk / 6) + c % tile.bk / 6) * 32 + Swapped(r % 32);
  }
  size_t Signs() const { return rows * triples / 6; }
  size_t Sign(size_t r, size_t c) const {
    return Signs() + 2 * ((Run(r, c) * (tile.bk / 24) + c % tile.bk / 24) * 16 + r % 16);
  }
  static int SignBit(size_t r, size_t c) { return 15 - int(c / 3 % 8 * 2 + r % 32 / 16); }
  size_t Tail() const { return Signs() + rows * triples / 24; }
  size_t Pair(size_t r, size_t c) const {
    const size_t run = (r / tile.bm * ((cols - triples) / kTailCols) + c / kTailCols) * (tile.bm / kTailRows) +
                       r % tile.bm / kTailRows;
    return Tail() + (run * (kTailCols / kTailRun) + c % kTailCols / kTailRun) * 32 + Swapped(r % 32);
  }
  size_t End() const { return Tail() + rows * (cols - triples) / 4; }
};

// Digits of a place belong to the row or to the column, so a place is that of its row plus that of its column: the
// latter of columns 0, step, 2 step ...
template <class Place>
std::vector<size_t> PlacesOf(size_t cols, size_t step, const Place& place) {
  std::vector<size_t> places(cols / step);
  for (size_t k = 0; k < places.size(); ++k) places[k] = place(k * step) - place(0);
  return places;
}

struct Tl2Rows {
  Tl2Places place;
  std::vector<size_t> nibble, sign, pair;
  Tl2Rows(size_t rows, size_t cols, const LutTile& t)
      : place(rows, cols, t),
        nibble(PlacesOf(place.triples, 3, [&](size_t c) { return place.Nibble(0, c); })),
        sign(PlacesOf(place.triples, 3, [&](size_t c) { return place.Sign(0, c); })),
        pair(PlacesOf(cols - place.triples, 4, [&](size_t c) { return place.Pair(0, c); })) {}
};

uint8_t PairByte(const int8_t* w) { return uint8_t((3 * w[0] + w[1] + 4) << 4 | (3 * w[2] + w[3] + 4)); }
int8_t Limited(int v) { return int8_t(v < -1 ? -1 : v > 1 ? 1 : v); }
void PairsOfByte(uint8_t byte, int8_t* w) {
  for (int i = 0; i < 2; ++i) {
    const int v = i == 0 ? byte >> 4 : byte & 15;
    w[2 * i] = Limited(v / 3 - 1);
    w[2 * i + 1] = Limited(v % 3 - 1);
  }
}

}  // namespace

size_t Tl1Bytes(size_t rows, size_t cols, const LutTile& tile) {
  CheckTl1(rows, cols, tile);
  return rows * cols / 4;
}
size_t Tl2Bytes(size_t rows, size_t cols, const LutTile& tile) {
  CheckTl2(rows, cols, tile);
  const size_t end = Tl2Places(rows, cols, tile).End();
  // The writer reserves room for 256 columns of pairs, whatever it needs.
  const size_t room = cols < 256 ? 0 : (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 4;
  return end > room ? end : room;
}

void PackTl1(const int8_t* w, size_t rows, size_t cols, const LutTile& tile, uint8_t* out) {
  CheckTl1(rows, cols, tile);
  const auto places = PlacesOf(cols, 4, [&](size_t c) { return Tl1Place(0, c, cols, tile); });
  ParallelFor(rows, 16, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      uint8_t* const to = out + Tl1Place(r, 0, cols, tile);
      for (size_t k = 0; k < cols / 4; ++k) to[places[k]] = PairByte(w + r * cols + 4 * k);
    }
  });
}

void UnpackTl1(const uint8_t* packed, size_t rows, size_t cols, const LutTile& tile, int8_t* w) {
  CheckTl1(rows, cols, tile);
  const auto places = PlacesOf(cols, 4, [&](size_t c) { return Tl1Place(0, c, cols, tile); });
  ParallelFor(rows, 16, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const uint8_t* const from = packed + Tl1Place(r, 0, cols, tile);
      for (size_t k = 0; k < cols / 4; ++k) PairsOfByte(from[places[k]], w + r * cols + 4 * k);
    }
  });
}

void PackTl2(const int8_t* w, size_t rows, size_t cols, const LutTile& tile, uint8_t* out) {
  std::memset(out, 0, Tl2Bytes(rows, cols, tile));
  const Tl2Rows at(rows, cols, tile);
  ParallelFor(rows, 32, [&](size_t begin, size_t end) {  // two rows share a word of signs, but both are of one task
    for (size_t r = begin; r < end; ++r) {
      const int8_t* row = w + r * cols;
      uint8_t *const nibbles = out + at.place.Nibble(r, 0), *const signs = out + at.place.Sign(r, 0);
      for (size_t k = 0; k < at.place.triples / 3; ++k, row += 3) {
        const int v = 9 * row[0] + 3 * row[1] + row[2];
        nibbles[at.nibble[k]] |= uint8_t(std::abs(v) << (k % 2 == 0 ? 4 : 0));
        const int bit = Tl2Places::SignBit(r, 3 * k);
        signs[at.sign[k] + size_t(bit / 8)] |= uint8_t(int(v < 0) << bit % 8);
      }
      uint8_t* const pairs = out + at.place.Pair(r, 0);
      for (size_t k = 0; k < at.pair.size(); ++k, row += 4) pairs[at.pair[k]] = PairByte(row);
    }
  });
}

void UnpackTl2(const uint8_t* packed, size_t rows, size_t cols, const LutTile& tile, int8_t* w) {
  CheckTl2(rows, cols, tile);
  const Tl2Rows at(rows, cols, tile);
  ParallelFor(rows, 32, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      int8_t* row = w + r * cols;
      const uint8_t *const nibbles = packed + at.place.Nibble(r, 0), *const signs = packed + at.place.Sign(r, 0);
      for (size_t k = 0; k < at.place.triples / 3; ++k, row += 3) {
        int v = nibbles[at.nibble[k]] >> (k % 2 == 0 ? 4 : 0) & 15;
        const int bit = Tl2Places::SignBit(r, 3 * k);
        if (signs[at.sign[k] + size_t(bit / 8)] >> bit % 8 & 1) v = -v;
        v += 13;  // digits 0, 1, 2
        row[0] = Limited(v / 9 - 1);
        row[1] = Limited(v / 3 % 3 - 1);
        row[2] = Limited(v % 3 - 1);
      }
      const uint8_t* const pairs = packed + at.place.Pair(r, 0);
      for (size_t k = 0; k < at.pair.size(); ++k, row += 4) PairsOfByte(pairs[at.pair[k]], row);
    }
  });
}

}  // namespace edgequant
