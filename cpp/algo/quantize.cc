#include "algo/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "algo/grid.h"
#include "algo/importance.h"
#include "algo/tuning.h"
#include "core/threads.h"
#include "format/shape.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/round.h"

namespace edgequant {
namespace {

// Weights per task: source, result and what is decoded for the check stay in the second-level cache.
constexpr size_t kTask = 1 << 14;

// The largest magnitude that the format's numbers can carry.
float LimitOf(FormatId to) {
  const Block& b = BlockOf(to);
  if (b.scale.type == Number::kUE4M3) return 448 * ShapeOf(b).high;
  if (b.scale.type != Number::kF16) return 3.4028235e38f;
  if (b.n == 1) return 65519.996f;
  if (IsGrid(to)) return GridLimit(to);
  const Shape s = ShapeOf(b);
  const float reach = std::min(-s.low, s.high);
  if (s.two_level) return 65504.0f * float(s.affine ? s.min_high : std::min(-s.scale_low, s.scale_high) * reach);
  return s.affine ? 65504.0f : 65504.0f * reach;
}

[[noreturn]] void FailAt(const float* x, size_t cols, size_t first_row, float limit, FormatId to) {
  for (size_t i = 0;; ++i) {
    if (std::abs(x[i]) <= limit) continue;
    const size_t row = first_row + i / cols, col = i % cols;
    if (std::isnan(x[i])) Fail("NaN at row ", row, ", column ", col);
    if (std::isinf(x[i])) Fail("infinity at row ", row, ", column ", col);
    Fail(x[i], " at row ", row, ", column ", col, " is too large for ", NameOf(to), ", which reaches ", limit);
  }
}

bool UsesSearch(FormatId to, const QuantizeOptions& options) {
  if (IsGrid(to)) return true;
  if (!CanSearch(to)) return false;
  return !CanRound(to) || options.importance || options.effort == Effort::kBest;
}

}  // namespace

bool CanQuantize(FormatId to) { return CanRound(to) || CanSearch(to) || IsGrid(to); }

void Quantize(const TensorView& w, FormatId to, const QuantizeOptions& options, uint8_t* out, ErrorStats* stats) {
  if (!CanQuantize(to)) Fail("weights cannot be encoded as ", NameOf(to), " yet");
  const size_t cols = w.cols, in_bytes = RowBytes(w.format, cols), out_bytes = RowBytes(to, cols);
  if (w.rows == 0 || cols == 0) return;
  const bool search = UsesSearch(to, options);
  const std::vector<float> importance = search ? PrepareImportance(options.importance, cols, BlockOf(to)) : std::vector<float>();
  const Weighting weighting = WeightingOf(to, options.objective, options.importance != nullptr);
  const Tuning tuning = TuningOf(to, options.effort, weighting);
  const float limit = LimitOf(to);
  uint32_t limit_bits;
  std::memcpy(&limit_bits, &limit, sizeof limit_bits);

  const size_t grain = std::max<size_t>(1, kTask / cols);
  std::vector<ErrorStats> parts(stats ? (w.rows + grain - 1) / grain : 0);  // summed in order: the same at any thread count
  ParallelFor(w.rows, grain, [&](size_t begin, size_t end) {
    const size_t rows = end - begin;
    const uint8_t* source = w.data + begin * in_bytes;
    const float* x = reinterpret_cast<const float*>(source);
    std::vector<float> decoded;
    if (w.format != FormatId::kF32 || reinterpret_cast<uintptr_t>(source) % alignof(float) != 0) {
      decoded.resize(rows * cols);
      DequantizeBlocks(w.format, source, rows * cols / size_t(BlockOf(w.format).n), decoded.data());
      x = decoded.data();
    }
    if (LargestMagnitude(x, rows * cols) > limit_bits) FailAt(x, cols, options.first_row + begin, limit, to);
    uint8_t* result = out + begin * out_bytes;
    if (IsGrid(to)) {
      QuantizeGrid(GridProblemOf(to, options), to, x, rows, cols, importance.empty() ? nullptr : importance.data(), result);
    } else if (search) {
      SearchRows(to, {x, rows, cols, importance.empty() ? nullptr : importance.data(), weighting, &tuning, result});
    } else {
      RoundBlocks(to, x, rows * cols / size_t(BlockOf(to).n), result);
    }
    if (stats)
      parts[begin / grain] = Compare({FormatId::kF32, reinterpret_cast<const uint8_t*>(x), rows, cols},
                                     {to, result, rows, cols}, options.importance);
  });
  if (stats)
    for (const ErrorStats& part : parts) *stats += part;
}

}  // namespace edgequant
