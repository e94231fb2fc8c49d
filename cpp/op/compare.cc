#include "op/compare.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/threads.h"
#include "kernels/cpu/dequantize.h"

namespace edgequant {
namespace {

constexpr size_t kTile = 2048;    // weights decoded at a time: two tiles stay in the first-level cache
constexpr size_t kTask = 1 << 16;

// Adds up one stretch of a row.
void Accumulate(const float* a, const float* b, const float* w, size_t n, ErrorStats& s) {
  for (size_t k = 0; k < n; ++k) {
    const double x = a[k], y = b[k], d = x - y, i = w ? double(w[k]) : 1.0;
    s.squared_error += d * d;
    s.squared_norm += x * x;
    s.squared_norm_b += y * y;
    s.dot += x * y;
    s.weighted_error += i * d * d;
    s.weighted_norm += i * x * x;
    s.max_error = std::max(s.max_error, std::abs(d));
  }
  s.count += double(n);
}

}  // namespace

ErrorStats& ErrorStats::operator+=(const ErrorStats& part) {
  squared_error += part.squared_error;
  squared_norm += part.squared_norm;
  squared_norm_b += part.squared_norm_b;
  dot += part.dot;
  weighted_error += part.weighted_error;
  weighted_norm += part.weighted_norm;
  max_error = std::max(max_error, part.max_error);
  count += part.count;
  return *this;
}

ErrorStats Compare(const TensorView& a, const TensorView& b, const float* importance) {
  if (a.rows != b.rows || a.cols != b.cols)
    Fail("cannot compare a matrix of ", a.rows, " x ", a.cols, " with one of ", b.rows, " x ", b.cols);
  const size_t a_bytes = RowBytes(a.format, a.cols), b_bytes = RowBytes(b.format, b.cols);
  const size_t a_n = size_t(BlockOf(a.format).n), b_n = size_t(BlockOf(b.format).n);
  const size_t step = std::max({kTile, a_n, b_n});
  if (step % a_n != 0 || step % b_n != 0) Fail("cannot compare ", NameOf(a.format), " with ", NameOf(b.format));
  const size_t grain = std::max<size_t>(1, kTask / std::max<size_t>(1, a.cols));
  std::vector<ErrorStats> parts((a.rows + grain - 1) / grain);  // one per task: the sum does not depend on the threads
  ParallelFor(a.rows, grain, [&](size_t begin, size_t end) {
    std::vector<float> x(step), y(step);
    ErrorStats sum;
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < a.cols; c += step) {
        const size_t n = std::min(step, a.cols - c);
        DequantizeBlocks(a.format, a.data + r * a_bytes + c / a_n * size_t(BlockOf(a.format).bytes), n / a_n, x.data());
        DequantizeBlocks(b.format, b.data + r * b_bytes + c / b_n * size_t(BlockOf(b.format).bytes), n / b_n, y.data());
        Accumulate(x.data(), y.data(), importance ? importance + c : nullptr, n, sum);
      }
    }
    parts[begin / grain] = sum;
  });
  ErrorStats total;
  for (const ErrorStats& part : parts) total += part;
  return total;
}

}  // namespace edgequant
