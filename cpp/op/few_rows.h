// Up to kMaxRows rows of activations, as the fused products of a row of panels take them.
#pragma once
#include "core/scratch.h"
#include "kernels/cpu/gemv.h"
#include "kernels/cpu/panel_activations.h"
#include "op/matmul.h"

namespace edgequant {

inline int DigitsOf(Compute compute) { return compute == Compute::kExact ? kExactDigits : 1; }

// Products are made in three steps: Quantize rows once, Fit them to the layout of the weights (to the next weights too,
// if their layout differs), then Multiply panels, on any number of threads.
class FewRows {
 public:
  static constexpr size_t kMaxRows = 8;
  // Whether this is the way for so many rows. More than the kernel's four pass over a panel a second time, while it
  // lies in the cache: that takes less than decoding codes of a few bits for tiles.
  static bool Hold(size_t rows, Compute compute, int bits = 8) {
    return rows * size_t(DigitsOf(compute)) <= (bits <= 2 ? kMaxRows : bits <= 4 ? 6 : kMaxGemvRows);
  }

  void Quantize(const RowsView& x, Compute compute);
  void Fit(const Panel& w);
  // Brings the beginning of a panel, which the kernel does not ask for in time, into the cache.
  static void Prefetch(const Panel& w, size_t panel);
  // y (rows, 16): the activations times the 16 rows of weights of panel `panel`. 64-byte aligned, of kMaxRows rows.
  void Multiply(const Panel& w, size_t panel, float* y) const;

 private:
  size_t rows_ = 0, cols_ = 0, padded_ = 0, held_ = 0, groups_ = 0;
  int digits_ = 1;
  PanelLayout layout_;  // what the numbers per group are for, if groups_ is not 0
  GemvFn four_ = nullptr, rest_ = nullptr;
  Scratch q_memory_, transposed_memory_, block_scale_memory_, start_memory_, scale_memory_, sum_memory_, x_sum_memory_;
  int8_t* q_ = nullptr;           // [row, digit][padded]
  const int8_t* taken_ = nullptr;  // by the kernel: q_, or for compact panels of grids a copy in their order
  float* block_scale_ = nullptr;  // [row, digit][block]
  int32_t *start_ = nullptr, *x_sum_ = nullptr;  // [row, digit][group], and so on
  float *scale_ = nullptr, *sum_ = nullptr;
};

}  // namespace edgequant
