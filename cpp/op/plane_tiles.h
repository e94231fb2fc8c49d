// Planes whose words hold parts of several rows, or lie between those of other rows, a tile of rows at a time.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "core/scratch.h"
#include "format/plane.h"

namespace edgequant {

// The rows of a tile share lines of bytes, or have lines of words of their own; the columns of these lines are pieces
// of the plane. A transposition leads from one to the other.
class PlaneTile {
 public:
  static bool Fits(const Plane& p);
  // Over a grid of rows x cols elements; `memory` is for the lines of this tile alone.
  PlaneTile(const Plane& p, size_t rows, size_t cols, Scratch& memory);

  size_t rows() const { return rows_; }  // of a tile

  // Rows [first, first + count), from a multiple of rows() on, are put one after another, and written.
  void Begin(size_t first, size_t count);
  void Put(size_t row, const uint8_t* codes, size_t count);  // count rows of cols codes
  void Write(uint8_t* data) const { Move<true>(data); }

  // Rows [first, first + count), any of up to rows(), are read, and taken.
  void Read(const uint8_t* data, size_t first, size_t count);
  void Take(size_t row, uint8_t* codes) const;

  // Where rows have lines of their own: the row's codes as a stream of bits; 16 bytes may be read behind it.
  const uint8_t* Stream(size_t row) const { return lines_ + (row - first_) * step_; }
  size_t stream_bytes() const { return elements_ * size_t(element_); }

 private:
  struct Slot {
    size_t byte;  // of the word
    int bit;
    bool add;     // a slot before this lies in the same byte
  };

  void Cover(size_t first, size_t count);
  uint8_t* LineOf(size_t row, size_t byte) const;
  template <bool kToPlane, class Byte>
  void Move(Byte* data) const;

  const Plane p_;
  PlaneShape shape_;
  size_t cols_, chunk_, chunk_lines_;          // rows that share lines, and how many
  int element_;                                // of a line: bytes
  size_t elements_, step_, rows_;
  size_t first_ = 0, count_ = 0;               // the tile: its first row, and how many lines
  uint8_t* lines_ = nullptr;
  bool cleared_ = false;
  std::vector<Slot> slots_;
  Scratch& memory_;
};

// Rows that share bytes with rows further on, column by column (HF BitNet; HQQ, whose rows follow one another): they
// are put into the plane as they come.
class RowSlots {
 public:
  RowSlots(const Plane& p, size_t rows, size_t cols);

  // Of slots() times as many rows r and r + lanes() share bytes, those that follow share others. 0: no such plane.
  size_t lanes() const { return lanes_; }
  size_t slots() const { return size_t(p_.slots); }
  void Put(size_t row, const uint8_t* codes, uint8_t* data) const;  // the first of those that share bytes before others
  void Take(const uint8_t* data, size_t row, uint8_t* codes) const;

 private:
  size_t SlotOf(size_t row) const { return row / lanes_ % slots(); }
  size_t LineOf(size_t row) const { return row / (lanes_ * slots()) * lanes_ + row % lanes_; }

  const Plane& p_;
  size_t cols_, lanes_ = 0;
};

}  // namespace edgequant
