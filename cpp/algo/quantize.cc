#include "algo/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "algo/grid.h"
#include "algo/importance.h"
#include "algo/tuning.h"
#include "core/scratch.h"
#include "core/threads.h"
#include "format/shape.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/panel_limits.h"
#include "kernels/cpu/round.h"

namespace edgequant {
namespace {

// Weights per task: source, result and what is decoded for the check stay in the second-level cache.
constexpr size_t kTask = 1 << 14;
// Weights per piece, so that what a hand-over costs (a system call, weights that another thread has fetched) does not
// count; fewer in small matrices, which then still have a few pieces for each thread.
constexpr size_t kPiece = 1 << 18, kPieces = 4;  // for each thread
size_t PieceRows(size_t rows, size_t cols, size_t most_tasks) {
  const size_t task = std::max<size_t>(1, kTask / std::max<size_t>(1, cols)), tasks = (rows + task - 1) / task;
  return task * std::clamp<size_t>(tasks / (kPieces * size_t(NumThreads())), 1, most_tasks);
}

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
  if (options.importance || options.effort == Effort::kBest) return true;
  return !(options.effort == Effort::kFast ? CanRound(to) : RoundsAsReference(to));
}

}  // namespace

bool CanQuantize(FormatId to) { return CanRound(to) || CanSearch(to) || IsGrid(to); }

namespace {

// Encodes rows of one matrix, any number at a time, on any thread.
class Encoder {
 public:
  Encoder(const TensorView& w, FormatId to, const QuantizeOptions& options)
      : w_(w), to_(to), options_(options), in_bytes_(RowBytes(w.format, w.cols)), out_bytes_(RowBytes(to, w.cols)),
        limit_(LimitOf(to)), search_(UsesSearch(to, options)),
        weighting_(WeightingOf(to, options.objective, options.importance != nullptr)),
        tuning_(TuningOf(to, options.effort, weighting_)), default_(TuningOf(to, Effort::kDefault, weighting_)),
        fast_(TuningOf(to, Effort::kFast, weighting_)), best_(TuningOf(to, Effort::kBest, weighting_)) {
    std::memcpy(&limit_bits_, &limit_, sizeof limit_bits_);
    if (search_) importance_ = PrepareImportance(options.importance, w.cols, BlockOf(to));
  }
  size_t row_bytes() const { return out_bytes_; }
  bool rounds() const { return !IsGrid(to_) && !search_; }
  // Of rows that lie in memory as floats nothing but the result is kept: any number may be encoded in one go.
  bool in_place() const { return rounds() && IsInPlace(w_.data); }

  void Rows(size_t begin, size_t end, uint8_t* result, ErrorStats* error) const {
    const size_t rows = end - begin, cols = w_.cols;
    const float* x = Source(begin, rows);
    const uint32_t most =
        rounds() ? RoundBlocks(to_, x, rows * cols / size_t(BlockOf(to_).n), result) : LargestMagnitude(x, rows * cols);
    if (most > limit_bits_) FailAt(x, cols, options_.first_row + begin, limit_, to_);
    const float* importance = importance_.empty() ? nullptr : importance_.data();
    if (IsGrid(to_)) {
      QuantizeGrid(GridProblemOf(to_, options_), to_, x, rows, cols, importance, result);
    } else if (search_) {
      // Never worse than less effort; than fast only where scales and minima make that likely. There fast needs more
      // starts, too.
      const Shape s = ShapeOf(BlockOf(to_));
      const Tuning* also = options_.effort == Effort::kBest ? &default_ : nullptr;
      const Tuning& other = options_.effort == Effort::kFast ? default_ : fast_;
      const Tuning* uneven = s.affine && s.two_level ? &other : nullptr;
      const Tuning* dominated = s.two_level && options_.effort != Effort::kBest ? &best_ : nullptr;
      SearchRows(to_, {x, rows, cols, importance, weighting_, &tuning_, also, result, uneven, dominated});
    }
    if (error)
      *error = Compare({FormatId::kF32, reinterpret_cast<const uint8_t*>(x), rows, cols}, {to_, result, rows, cols},
                       options_.importance);
  }

 private:
  bool IsInPlace(const uint8_t* source) const {
    return w_.format == FormatId::kF32 && !options_.order && reinterpret_cast<uintptr_t>(source) % alignof(float) == 0;
  }
  // The rows as floats: where they lie, if they are such already.
  const float* Source(size_t begin, size_t rows) const {
    const uint8_t* source = w_.data + begin * in_bytes_;
    if (IsInPlace(source)) return reinterpret_cast<const float*>(source);
    static thread_local Scratch memory;
    float* decoded = memory.Get<float>(rows * w_.cols);
    const size_t blocks = w_.cols / size_t(BlockOf(w_.format).n);
    if (!options_.order) {
      DequantizeBlocks(w_.format, source, rows * blocks, decoded);
    } else {
      for (size_t r = 0; r < rows; ++r)
        DequantizeBlocks(w_.format, w_.data + options_.order[begin + r] * in_bytes_, blocks, decoded + r * w_.cols);
    }
    return decoded;
  }

  const TensorView& w_;
  const FormatId to_;
  const QuantizeOptions& options_;
  const size_t in_bytes_, out_bytes_;
  const float limit_;
  const bool search_;
  const Weighting weighting_;
  const Tuning tuning_, default_, fast_, best_;
  std::vector<float> importance_;
  uint32_t limit_bits_;
};

// Calls piece(encoder, begin, end, errors) for all rows, on all threads; errors[i] is of the i-th grain of the piece.
template <class Piece>
void ForPieces(const TensorView& w, FormatId to, const QuantizeOptions& options, size_t most_tasks, ErrorStats* stats,
               const Piece& piece) {
  if (!CanQuantize(to)) Fail("weights cannot be encoded as ", NameOf(to), " yet");
  const Encoder encoder(w, to, options);
  if (w.rows == 0 || w.cols == 0) return;
  const size_t grain = std::max<size_t>(1, kTask / w.cols);
  // Summed in order: the same at any thread count.
  std::vector<ErrorStats> parts(stats ? (w.rows + grain - 1) / grain : 0);
  const size_t at_once = PieceRows(w.rows, w.cols, encoder.rounds() ? kPiece / kTask : most_tasks);
  ParallelFor(w.rows, at_once, [&](size_t begin, size_t end) {
    piece(encoder, begin, end, grain, stats ? &parts[begin / grain] : nullptr);
  });
  for (const ErrorStats& part : parts) *stats += part;
}

// Rows [begin, end), a grain at a time where something is read again.
void EncodeRows(const Encoder& encoder, size_t begin, size_t end, size_t grain, uint8_t* out, ErrorStats* errors) {
  if (!errors && encoder.in_place()) grain = end - begin;
  for (size_t r = begin; r < end; r += grain)
    encoder.Rows(r, std::min(end, r + grain), out + (r - begin) * encoder.row_bytes(), errors ? errors++ : nullptr);
}

}  // namespace

void Quantize(const TensorView& w, FormatId to, const QuantizeOptions& options, uint8_t* out, ErrorStats* stats) {
  ForPieces(w, to, options, 1, stats,
            [out](const Encoder& encoder, size_t begin, size_t end, size_t grain, ErrorStats* errors) {
              EncodeRows(encoder, begin, end, grain, out + begin * encoder.row_bytes(), errors);
            });
}

void Quantize(const TensorView& w, FormatId to, const QuantizeOptions& options, const RowSink& sink,
              ErrorStats* stats) {
  ForPieces(w, to, options, kPiece / kTask, stats,
            [&sink](const Encoder& encoder, size_t begin, size_t end, size_t grain, ErrorStats* errors) {
              static thread_local Scratch memory;
              uint8_t* piece = memory.Get<uint8_t>((end - begin) * encoder.row_bytes());
              EncodeRows(encoder, begin, end, grain, piece, errors);
              sink(begin, end - begin, piece);
            });
}

void ReadAndFill(const TensorView& w, size_t row_bytes, uint8_t* out) {
  constexpr size_t kLine = 64, kStep = 256;  // of ReadMemory
  const size_t in_bytes = RowBytes(w.format, w.cols);
  ParallelFor(w.rows, PieceRows(w.rows, w.cols, kPiece / kTask), [&](size_t begin, size_t end) {
    const uintptr_t from = reinterpret_cast<uintptr_t>(w.data + begin * in_bytes) / kLine * kLine + kLine;
    const uintptr_t to = reinterpret_cast<uintptr_t>(w.data + end * in_bytes);
    const int32_t sum = to > from ? ReadMemory(reinterpret_cast<const void*>(from), (to - from) / kStep * kStep) : 0;
    std::memset(out + begin * row_bytes, sum, (end - begin) * row_bytes);
  });
}

}  // namespace edgequant
