#include "op/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/cpu/compare.h"
#include "kernels/cpu/dequantize.h"

namespace edgequant {
namespace {

constexpr size_t kTile = 2048;     // weights decoded at a time: two tiles stay in the first-level cache
constexpr size_t kTask = 1 << 16;  // weights per task

// Decodes stretches of rows; f32 is read where it lies.
class Decoder {
 public:
  Decoder(const TensorView& m, float* tile) : m_(m), row_bytes_(RowBytes(m.format, m.cols)), tile_(tile) {}
  const float* Read(size_t row, size_t col, size_t n) {
    const Block& b = BlockOf(m_.format);
    const uint8_t* at = m_.data + row * row_bytes_ + col / size_t(b.n) * size_t(b.bytes);
    if (m_.format == FormatId::kF32 && reinterpret_cast<uintptr_t>(at) % alignof(float) == 0)
      return reinterpret_cast<const float*>(at);
    DequantizeBlocks(m_.format, at, n / size_t(b.n), tile_);
    return tile_;
  }

 private:
  const TensorView& m_;
  size_t row_bytes_;
  float* tile_;
};

}  // namespace

ErrorStats& ErrorStats::operator+=(const ErrorStats& part) {
  squared_error += part.squared_error;
  squared_norm += part.squared_norm;
  squared_norm_b += part.squared_norm_b;
  dot += part.dot;
  weighted_error += part.weighted_error;
  weighted_norm += part.weighted_norm;
  max_error = std::isnan(max_error) || std::isnan(part.max_error) ? std::numeric_limits<double>::quiet_NaN()
                                                                  : std::max(max_error, part.max_error);
  count += part.count;
  return *this;
}

ErrorStats Compare(const TensorView& a, const TensorView& b, const float* importance) {
  if (a.rows != b.rows || a.cols != b.cols)
    Fail("cannot compare a matrix of ", a.rows, " x ", a.cols, " with one of ", b.rows, " x ", b.cols);
  RowBytes(a.format, a.cols), RowBytes(b.format, b.cols);  // throws if rows do not divide
  const size_t a_n = size_t(BlockOf(a.format).n), b_n = size_t(BlockOf(b.format).n);
  size_t step = kTile;
  while (step % a_n != 0 || step % b_n != 0) step += kTile;
  const size_t grain = std::max<size_t>(1, kTask / std::max<size_t>(1, a.cols));
  std::vector<ErrorStats> parts((a.rows + grain - 1) / grain);  // one per task: the sum does not depend on the threads
  ParallelFor(a.rows, grain, [&](size_t begin, size_t end) {
    static thread_local Scratch x_memory, y_memory;
    Decoder x(a, x_memory.Get<float>(step)), y(b, y_memory.Get<float>(step));
    CompareSums s;
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < a.cols; c += step) {
        const size_t n = std::min(step, a.cols - c);
        AddPairs(x.Read(r, c, n), y.Read(r, c, n), importance ? importance + c : nullptr, n, s);
      }
    }
    if (std::isnan(s.squared_error)) s.max_error = s.squared_error;
    parts[begin / grain] = {s.squared_error,  s.squared_norm,  s.squared_norm_b, s.dot,
                            s.weighted_error, s.weighted_norm, s.max_error,      double((end - begin) * a.cols)};
  });
  ErrorStats total;
  for (const ErrorStats& part : parts) total += part;
  return total;
}

}  // namespace edgequant
