// Encoding whole matrices, on all threads.
#pragma once
#include <functional>

#include "op/compare.h"
#include "op/tensor.h"

namespace edgequant {

enum class Effort : uint8_t { kFast, kDefault, kBest };

// What the search minimises: the weights that ggml's own quantizer of the format uses, or the plain squared error
// (times the importance, where one is given).
enum class Objective : uint8_t { kGgml, kPlain };

struct QuantizeOptions {
  const float* importance = nullptr;  // one non-negative number per column, or null
  Effort effort = Effort::kDefault;
  Objective objective = Objective::kGgml;
  size_t first_row = 0;               // what messages call the first row, where w is a part of a matrix
  const size_t* order = nullptr;      // row i of the result is row order[i] of w; or null
};

// Takes `rows` encoded rows, from row `first` on. Called from several threads at once, in any order.
using RowSink = std::function<void(size_t first, size_t rows, const uint8_t* bytes)>;

// True if Quantize can write the format.
bool CanQuantize(FormatId to);

// Encodes w (any decodable format) as `to` into out, rows * RowBytes(to, cols) bytes. The same input gives the same
// bytes at any thread count. With stats, also decodes what it wrote, compares it with w, chunk by chunk, and adds that.
// Throws Error for NaN or Inf (with row and column), for rows that do not divide, for formats without an encoder.
void Quantize(const TensorView& w, FormatId to, const QuantizeOptions& options, uint8_t* out,
              ErrorStats* stats = nullptr);
// The same, handed over piece by piece while it is still in cache: memory holds a few hundred rows, never the matrix.
void Quantize(const TensorView& w, FormatId to, const QuantizeOptions& options, const RowSink& sink,
              ErrorStats* stats = nullptr);

// What encoding cannot pass, for benchmarks: reads w and fills rows of `row_bytes` bytes, on all threads, in the same
// pieces.
void ReadAndFill(const TensorView& w, size_t row_bytes, uint8_t* out);

}  // namespace edgequant
