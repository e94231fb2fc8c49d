// Products with weights that are no panel: numbers where they lie, and rows that are decoded piece by piece.
#pragma once
#include "core/scratch.h"
#include "op/many_rows.h"

namespace edgequant {

// All of f32 arithmetic; bf16 times bf16 in pairs where the processor has products of such. Products are made in two
// steps: Fill with rows, on all threads, then Multiply in Tasks, on any number of threads. A task is some rows of weights
// times a chunk of rows of x.
class FloatRows {
 public:
  void Fill(const RowsView& x, const Panel& w);
  size_t Tasks(const Panel& w) const;
  void Multiply(const Panel& w, size_t task, const Rows& rows, const MutableRowsView& y, const PerColumn& then) const;

 private:
  static constexpr size_t kFewTiles = 4;  // of x
  // Numbers are read where they lie if they are for few products each; else a piece at a time becomes f32 for many.
  bool InPlace(const Panel& w) const { return w.floats->data && tiles_ <= kFewTiles; }
  size_t Chunks() const;
  size_t RowsPerTask(const Panel& w) const;

  bool pairs_ = false;      // of bf16
  size_t rows_ = 0, tiles_ = 0, tile_rows_ = 0, steps_ = 0;
  Scratch memory_;
  float* x_ = nullptr;  // [tile][step][row][lane]
};

}  // namespace edgequant
