// Activations times quantized weights.
#pragma once
#include <vector>

#include "op/repack.h"

namespace edgequant {

// Rows of activations or results: numbers of type f32, f16 or bf16, row i at data + i * stride bytes; no alignment is
// needed. With `numbers`, row i is that of number numbers[i] / per_row.
struct RowsView {
  FormatId type;
  const void* data;
  size_t rows, cols;
  ptrdiff_t stride;
  const uint32_t* numbers = nullptr;
  size_t per_row = 1;
  const uint8_t* Row(size_t i) const {
    return static_cast<const uint8_t*>(data) + ptrdiff_t(numbers ? numbers[i] / per_row : i) * stride;
  }
};
struct MutableRowsView {
  FormatId type;
  void* data;
  size_t rows, cols;
  ptrdiff_t stride;
};

// Weights without a panel (FloatWeights) are multiplied in f32 either way.
// kInt8: each row of x is rounded to int8 with one scale per 256 numbers. kExact: x is kept to 26 bits or more below
// the largest of the 256, so that results equal those of f32 arithmetic on decoded weights up to its rounding.
enum class Compute { kInt8, kExact };

// What is done to the columns of a product before it is rounded and stored: times N floats, plus N floats; or null.
struct PerColumn {
  const float *scale = nullptr, *bias = nullptr;
  PerColumn Of(size_t expert, size_t n) const {
    return {scale ? scale + expert * n : nullptr, bias ? bias + expert * n : nullptr};
  }
};

// y = x * w^T * scale + bias: x (M, K), w (N, K), y (M, N). The same at any number of threads.
void Matmul(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute, const PerColumn& then = {});

// Row i of y = row i / per_row of x, times the weights of expert e = index[i], all of which are (N, K), times row e of
// then.scale (experts, N), plus row e of then.bias: the product of a mixture of experts, whose rows go to per_row
// experts each. An Error if there is no such expert. All experts share the threads; each is read once.
void MatmulGrouped(const RowsView& x, const std::vector<const Panel*>& experts, const int64_t* index, size_t per_row,
                   const MutableRowsView& y, Compute compute, const PerColumn& then = {});

// For benchmarks, on all threads: reads all of w's panels; multiplies about `products` pairs of bytes in registers, and
// returns how many.
void ReadPanels(const Panel& w);
size_t MultiplyAtPeak(size_t products);

}  // namespace edgequant
