// Rows of activations for tiled products: panels are decoded a strip at a time, then multiplied tile by tile.
#pragma once
#include "core/scratch.h"
#include "op/few_rows.h"

namespace edgequant {

// Which rows of y the rows of a product go to: numbers of them, or all in order.
struct Rows {
  size_t count;
  const uint32_t* numbers = nullptr;
  size_t operator[](size_t i) const { return numbers ? numbers[i] : i; }
};

// Scales, adds the bias, converts and writes columns [first, first + n) of row i.
void WriteRow(const MutableRowsView& y, size_t i, size_t first, size_t n, float* sums, const PerColumn& then);

// Products are made in two steps: Fill with rows, on all threads, then Multiply in Tasks, on any number of threads. A
// task is a strip of panels times a chunk of rows.
class ManyRows {
 public:
  static constexpr size_t kAtOnce = 256;  // rows (digits) in a chunk: a thread keeps their sums in its L2 cache

  void Fill(const RowsView& x, Compute compute, const Panel& w);
  size_t Tasks(const Panel& w) const;
  void Multiply(const Panel& w, size_t task, const Rows& rows, const MutableRowsView& y, const PerColumn& then) const;

 private:
  size_t Chunks() const;

  int digits_ = 1;
  size_t tiles_ = 0, blocks_ = 0, groups_per_block_ = 0;
  size_t starts_per_block_ = 0, sums_per_block_ = 0, pairs_per_block_ = 0;
  Scratch q_memory_, scale_memory_, start_memory_, sum_memory_, pair_memory_;
  uint8_t* q_ = nullptr;      // [block][tile][256 / run][4][run], what runs are gemm.h says
  float* scale_ = nullptr;    // [block][tile][4]
  int32_t* start_ = nullptr;  // [block][tile][group][4], or header for group where those are folded
  float* sum_ = nullptr;      // [block][tile][group][4], with minima; layouts with two levels have pairs instead
  int32_t* pair_ = nullptr;   // [block][tile][pair][4]
};

}  // namespace edgequant
