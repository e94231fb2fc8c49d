// Where the elements of a plane lie: one at a time, for any description. What is fast is in op/planes.
#pragma once
#include "format/scheme.h"

namespace edgequant {

// A stream none of whose elements lies in two words, as the slots that it has then.
inline Plane WithSlots(Plane p) {
  if (p.slots == 0 && p.bits > 0 && p.word % p.bits == 0) p.slots = p.word / p.bits;
  return p;
}

// A plane over a grid of rows x cols elements, in words.
struct PlaneShape {
  size_t rows, cols;   // of elements; flat planes have one row
  size_t axis, other;  // elements along the words, and lines of words
  size_t lanes, slots; // slots of a stream: 0
  size_t words;        // along the axis
  size_t outer, inner; // the array: outer x inner words

  size_t bytes(const Plane& p) const { return outer * inner * size_t(p.word) / 8; }
};

inline PlaneShape ShapeOf(const Plane& p, size_t rows, size_t cols) {
  PlaneShape s{};
  if (p.flat) cols *= rows, rows = 1;
  s.rows = rows;
  s.cols = cols;
  s.axis = p.down ? rows : cols;
  s.other = p.down ? cols : rows;
  s.slots = p.trits ? 5 : size_t(p.slots);
  s.lanes = size_t(p.lanes);
  if (s.slots == 0) {
    s.words = (s.axis * size_t(p.bits) + size_t(p.word) - 1) / size_t(p.word);
  } else {
    if (s.lanes == 0) {
      const size_t unit = size_t(p.lane_unit), share = (s.axis + s.slots - 1) / s.slots;
      s.lanes = (share + unit - 1) / unit * unit;
    }
    const size_t chunk = s.lanes * s.slots;
    s.words = (s.axis + chunk - 1) / chunk * s.lanes;
  }
  const bool words_inner = p.down == p.cols_first;
  s.outer = words_inner ? s.other : s.words;
  s.inner = words_inner ? s.words : s.other;
  return s;
}

// Where the bits of a slot begin in its word.
inline int BitOfSlot(const Plane& p, int slot) {
  int place = slot;
  for (size_t k = 0; k < p.order.size(); ++k)
    if (p.order[k] == slot) place = int(k);
  return p.high_first ? p.word - (place + 1) * p.bits : place * p.bits;
}

// The word of an element among all, and its first bit there.
struct Place { size_t word; int bit, slot; };

// Of a flat plane: row 0, and the element's index among all.
inline Place PlaceOf(const Plane& p, const PlaneShape& s, size_t row, size_t col) {
  const size_t i = p.down ? row : col, j = p.down ? col : row;
  size_t along;
  int bit, slot = 0;
  if (s.slots == 0) {
    along = i * size_t(p.bits) / size_t(p.word);
    bit = int(i * size_t(p.bits) % size_t(p.word));
  } else {
    slot = int(i / s.lanes % s.slots);
    along = i / (s.lanes * s.slots) * s.lanes + i % s.lanes;
    if (p.chunks_first) return {(along - i % s.lanes) * s.other + j * s.lanes + i % s.lanes, BitOfSlot(p, slot), slot};
    bit = BitOfSlot(p, slot);
  }
  const bool words_inner = p.down == p.cols_first;
  return {words_inner ? j * s.inner + along : along * s.inner + j, bit, slot};
}

inline uint32_t ReadWord(const uint8_t* data, int word, size_t i) {
  uint32_t v = 0;
  for (int b = 0; b < word / 8; ++b) v |= uint32_t(data[i * size_t(word) / 8 + size_t(b)]) << (8 * b);
  return v;
}
inline void WriteWord(uint8_t* data, int word, size_t i, uint32_t v) {
  for (int b = 0; b < word / 8; ++b) data[i * size_t(word) / 8 + size_t(b)] = uint8_t(v >> (8 * b));
}

inline int PowerOfThree(int k) { return k == 0 ? 1 : k == 1 ? 3 : k == 2 ? 9 : k == 3 ? 27 : 81; }
inline int DigitOfByte(int byte, int slot) { return (byte * PowerOfThree(slot) & 255) * 3 >> 8; }

// Integers only. `row` and `col` are those of the grid, also where the plane is flat.
inline int ReadElement(const Plane& p, const PlaneShape& s, const uint8_t* data, size_t row, size_t col, size_t cols) {
  const Place at = p.flat ? PlaceOf(p, s, 0, row * cols + col) : PlaceOf(p, s, row, col);
  uint32_t v = ReadWord(data, p.word, at.word);
  if (p.trits) return DigitOfByte(int(v), at.slot);
  v >>= at.bit;
  if (at.bit + p.bits > p.word) {
    const size_t step = p.down == p.cols_first ? 1 : s.inner;
    v |= ReadWord(data, p.word, at.word + step) << (p.word - at.bit);
  }
  return (int(v & ((1u << p.bits) - 1)) - p.offset) & ((1 << p.bits) - 1);
}
// The data must be zero before the first element is written. Trits are written five at a time elsewhere.
inline void WriteElement(const Plane& p, const PlaneShape& s, uint8_t* data, size_t row, size_t col, size_t cols,
                         int e) {
  const Place at = p.flat ? PlaceOf(p, s, 0, row * cols + col) : PlaceOf(p, s, row, col);
  const uint32_t v = uint32_t(e + p.offset) & ((1u << p.bits) - 1);
  WriteWord(data, p.word, at.word, ReadWord(data, p.word, at.word) | v << at.bit);
  if (at.bit + p.bits > p.word) {
    const size_t next = at.word + (p.down == p.cols_first ? 1 : s.inner);
    WriteWord(data, p.word, next, ReadWord(data, p.word, next) | v >> (p.word - at.bit));
  }
}

}  // namespace edgequant
