#include "algo/scheme.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "algo/scheme_encoder.h"
#include "algo/scheme_tuning.h"
#include "core/error.h"
#include "core/scratch.h"
#include "core/threads.h"
#include "op/hadamard.h"

namespace edgequant {

constexpr size_t kTask = 1 << 15;     // weights of one task
constexpr size_t kFewPerEntry = 64;  // weights for each number of a table

// Codes of these rows, one byte each.
static void CodeRows(const Encoder& e, size_t first, size_t rows, size_t code_cols, const float* scale,
                     const float* shift, uint8_t* codes) {
  for (size_t r = 0; r < rows; ++r) {
    uint8_t* const row = codes + r * code_cols;
    CodeRow(e, e.x + (first + r) * e.cols, scale + r * e.groups(), shift + r * e.groups(), row);
    std::fill(row + e.cols, row + code_cols, uint8_t{0});  // stored, but no weights
  }
}
// Rows of whole groups are as good as one.
void RuleRows(const Encoder& e, const SchemeSearch& search, size_t first, size_t rows, size_t code_cols, float* scale,
              float* shift, const CodePlace& codes) {
  const bool one = e.cols % e.group() == 0 && code_cols == e.cols;
  const size_t at_once = one ? rows : 1;
  for (size_t r = 0; r < rows; r += at_once) {
    const uint32_t largest = RuleGroups(search, e.x + (first + r) * e.cols, at_once * e.cols, e.group(),
                                        scale + r * e.groups(), shift + r * e.groups(), codes.From(r * code_cols));
    CheckMagnitudes(e, first + r, at_once, largest);
    if (code_cols > e.cols)  // stored, but no weights
      std::fill_n(codes.at + r * code_cols + e.cols, code_cols - e.cols, codes.offset);
  }
}

void EncodeRows(const Encoder& e, SchemeWriter& out) {
  constexpr size_t kInCache = 8192;  // codes
  const size_t groups = e.groups(), code_cols = out.code_cols();
  // Weights that are only rounded are fetched ahead: longer tasks, so that few of these are another thread's.
  const size_t share = e.rows * e.cols / (4 * size_t(NumThreads()));
  const size_t task = e.rule ? std::clamp(share, kTask, 8 * kTask) : kTask;
  out.ForRuns(task / e.cols, [&](size_t begin, size_t end) {
    const size_t count = end - begin;
    const size_t at_once = std::min(count, std::max<size_t>(1, kInCache / code_cols));
    thread_local Scratch scale_memory, shift_memory, code_memory;
    float* const scale = scale_memory.Get<float>(count * groups);
    float* const shift = shift_memory.Get<float>(count * groups);
    const CodePlace in_place = e.rule ? out.CodesInPlace(begin) : CodePlace();
    if (in_place.at) {
      RuleRows(e, e.search, begin, count, code_cols, scale, shift, in_place);
      out.PutScales(begin, scale, shift, count);
      return;
    }
    uint8_t* const codes = code_memory.Get<uint8_t>(at_once * code_cols);
    if (!e.rule) {
      CheckMagnitudes(e, begin, count);
      FindRows(e, e.search, e.x + begin * e.cols, count, scale, shift);
    }
    SchemeWriter::Run run(out);
    for (size_t first = begin; first < end; first += at_once) {
      const size_t rows = std::min(at_once, end - first);
      float *const some_scale = scale + (first - begin) * groups, *const some_shift = shift + (first - begin) * groups;
      if (e.rule) RuleRows(e, e.search, first, rows, code_cols, some_scale, some_shift, {codes});
      else CodeRows(e, first, rows, code_cols, some_scale, some_shift, codes);
      run.Put(first, codes, rows);
    }
    out.PutScales(begin, scale, shift, count);
  });
}

namespace {

// Numbers of the columns, as an encoder uses them.
std::vector<float> ColumnsOf(const Scheme& s, size_t cols, const SchemeOptions& options) {
  return SchemeImportance(options.importance, cols, s.GroupCols(cols));
}

const float* DataOrNull(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

// With the rows, the second moments of the inputs are rotated: what is on their diagonal becomes its mean over each
// run.
void QuantizeRotated(const Scheme& s, const float* x, size_t rows, size_t cols, SchemeOptions options,
                     const SchemeArrays<uint8_t>& arrays, std::vector<float>* table) {
  const std::vector<float> rotated = RotatedRows(s, x, rows, cols);
  std::vector<float> importance;
  if (options.importance) {
    const size_t block = TransformBlock(s.transform, cols, s.name);
    importance = SchemeImportance(options.importance, cols, block);
    for (size_t first = 0; first < cols; first += block) {
      double sum = 0;
      for (size_t c = first; c < first + block; ++c) sum += double(importance[c]);
      std::fill_n(importance.begin() + ptrdiff_t(first), block, float(sum / double(block)));
    }
    options.importance = importance.data();
  }
  Scheme plain = s;
  plain.name += ", transformed";  // in messages: so are the weights that they show
  plain.transform = {};
  QuantizeScheme(plain, rotated.data(), rows, cols, options, arrays, table);
}

// Weighted squared error of rows as stored.
double ErrorOf(const SchemeView& q, const float* x, const float* importance) {
  const size_t step = std::max<size_t>(1, 8 * kTask / q.cols);
  std::vector<float> decoded(step * q.cols);
  double sum = 0;
  for (size_t first = 0; first < q.rows; first += step) {
    const size_t count = std::min(step, q.rows - first);
    DequantizeScheme(q, first, count, decoded.data());
    for (size_t r = 0; r < count; ++r)
      for (size_t c = 0; c < q.cols; ++c) {
        const float gap = decoded[r * q.cols + c] - x[(first + r) * q.cols + c];
        sum += double((importance ? importance[c] : 1) * gap * gap);
      }
  }
  return sum;
}

// A table that was learned with more effort need not be the better one: that of less, and what is encoded with it,
// takes its place where it is.
void KeepBetterTable(const Scheme& s, const float* x, size_t rows, size_t cols, const SchemeOptions& options,
                     const SchemeArrays<uint8_t>& arrays, std::vector<float>* table) {
  const std::vector<float> importance = ColumnsOf(s, cols, options);
  SchemeMemory other(s, rows, cols);
  std::vector<float> other_table;
  SchemeOptions less = options;
  less.effort = Effort(int(options.effort) - 1);
  QuantizeScheme(s, x, rows, cols, less, other.arrays, &other_table);
  SchemeView view = other.view;
  view.table = other_table.data();
  const double of_other = ErrorOf(view, x, DataOrNull(importance));
  view.table = table->data();
  for (int k = 0; k < kParts; ++k) view.arrays[Part(k)] = arrays[Part(k)];
  if (!(of_other < ErrorOf(view, x, DataOrNull(importance)))) return;
  for (int k = 0; k < kParts; ++k) std::copy(other.bytes[k].begin(), other.bytes[k].end(), arrays[Part(k)]);
  *table = other_table;
}

}  // namespace

SchemeMemory::SchemeMemory(const Scheme& s, size_t rows, size_t cols) : view{&s, rows, cols, {}, nullptr} {
  for (int k = 0; k < kParts; ++k) {
    if (s.interleaved ? Part(k) != Part::kCode : !PlaneOf(s, Part(k)).present()) continue;
    const PlaneShape shape = ArrayOf(s, Part(k), rows, cols);
    bytes[k].resize(shape.outer * shape.inner * size_t(s.interleaved ? 8 : PlaneOf(s, Part(k)).word) / 8);
    view.arrays[Part(k)] = arrays[Part(k)] = bytes[k].data();
  }
}

std::vector<float> RotatedRows(const Scheme& s, const float* x, size_t rows, size_t cols) {
  const Hadamard rotation(s.transform, cols, s.name);
  const float limit = kLargestWeight / std::sqrt(float(rotation.block()));
  std::vector<float> rotated(rows * cols);
  ParallelFor(rows, std::max<size_t>(1, kTask / cols), [&](size_t begin, size_t end) {
    CheckBelow(s, x + begin * cols, begin, end - begin, cols, limit);
    for (size_t r = begin; r < end; ++r) {
      std::copy_n(x + r * cols, cols, &rotated[r * cols]);
      rotation.Forward(&rotated[r * cols]);
    }
  });
  return rotated;
}

std::vector<float> LearnSchemeTable(const Scheme& s, const float* x, size_t rows, size_t cols,
                                    const SchemeOptions& options) {
  const std::vector<float> importance = ColumnsOf(s, cols, options);
  Encoder e(s, x, rows, cols, DataOrNull(importance), options.effort);
  return LearnTable(e);
}

void QuantizeScheme(const Scheme& s, const float* x, size_t rows, size_t cols, const SchemeOptions& options,
                    const SchemeArrays<uint8_t>& arrays, std::vector<float>* table) {
  CheckScheme(s);
  CheckFits(s, rows, cols);
  if (s.transform.hadamard) return QuantizeRotated(s, x, rows, cols, options, arrays, table);
  const std::vector<float> importance = ColumnsOf(s, cols, options);
  Encoder e(s, x, rows, cols, DataOrNull(importance), options.effort);
  e.rule = options.effort == Effort::kFast && s.rule != Rule::kNone;
  if (s.learned) *table = LearnTable(e);
  e.UseTable(s.learned ? *table : s.table);
  const bool by_rows =
      s.values != Values::kCodebook && s.values != Values::kGroupTable && !s.super.present() && s.group_rows == 1;
  SchemeWriter out(e, arrays);
  if (by_rows) EncodeRows(e, out);
  else if (s.values == Values::kCodebook) EncodeVectors(e, out);
  else if (s.values == Values::kGroupTable) EncodeGroupTables(e, out);
  else if (s.two_level()) EncodeLevels(e, out);
  else EncodeRegions(e, out);
  out.Finish();
  if (!s.learned) return;
  const bool few = rows * cols < kFewPerEntry * table->size();  // k-means of few weights ends anywhere
  if (options.effort == Effort::kBest || (options.effort == Effort::kDefault && few))
    KeepBetterTable(s, x, rows, cols, options, arrays, table);
}

void WriteScheme(const Scheme& s, const uint8_t* codes, const float* scale, const float* shift, size_t rows,
                 size_t cols, const SchemeArrays<uint8_t>& arrays) {
  const bool sub_scales = s.two_level() && (s.super_group || s.scale.cell == Cell::kInteger);
  if (sub_scales || s.dim > 1 || s.entries.present() || s.learned)
    Fail("format '", s.name, "': codes and scales cannot be written as they are");
  CheckFits(s, rows, cols);
  const Encoder e(s, nullptr, rows, cols, nullptr, Effort::kDefault);
  SchemeWriter out(e, arrays);
  const size_t groups = e.groups(), band = s.GroupRows(rows);
  out.ForRuns(kTask / cols, [&](size_t begin, size_t end) {
    SchemeWriter::Run run(out);
    std::vector<uint8_t> padded(out.code_cols());
    for (size_t r = begin; r < end; ++r) {
      std::copy_n(codes + r * cols, cols, padded.data());
      if (r % band == 0) out.PutScales(r / band, scale + r * groups, shift + r * groups);
      run.Put(r, padded.data(), 1);
    }
  });
  out.Finish();
}

}  // namespace edgequant
