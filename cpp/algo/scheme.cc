#include "algo/scheme.h"

#include <algorithm>
#include <cmath>

#include "algo/scheme_encoder.h"
#include "algo/scheme_tuning.h"
#include "core/error.h"
#include "core/threads.h"
#include "op/hadamard.h"

namespace edgequant {

constexpr size_t kTask = 1 << 15;  // weights of one task

void EncodeRows(const Encoder& e, SchemeWriter& out) {
  const size_t groups = e.groups(), code_cols = out.code_cols(), tile = std::max<size_t>(1, out.tile_rows());
  const size_t grain = std::max<size_t>(1, kTask / e.cols / tile) * tile;
  ParallelFor(e.rows, grain, [&](size_t begin, size_t end) {
    std::vector<float> scale((end - begin) * groups), shift((end - begin) * groups);
    std::vector<uint8_t> codes(tile * code_cols);
    if (!e.rule) {
      CheckMagnitudes(e, begin, end - begin);
      FindRows(e, e.search, e.x + begin * e.cols, end - begin, scale.data(), shift.data());
    }
    for (size_t first = begin; first < end; first += tile) {
      const size_t rows = std::min(tile, end - first);
      for (size_t r = first; r < first + rows; ++r) {
        const float* const x = e.x + r * e.cols;
        float *const row_scale = &scale[(r - begin) * groups], *const row_shift = &shift[(r - begin) * groups];
        uint8_t* const row = &codes[(r - first) * code_cols];
        if (e.rule) CheckMagnitudes(e, r, 1, RuleRow(e.search, x, e.cols, row_scale, row_shift, row));
        else CodeRow(e, x, row_scale, row_shift, row);
        std::fill(row + e.cols, row + code_cols, uint8_t{0});  // stored, but no weights
        out.PutScales(r, row_scale, row_shift);
      }
      out.PutCodes(first, codes.data(), rows);
    }
  });
}

namespace {

// Numbers of the columns, as an encoder uses them.
std::vector<float> ColumnsOf(const Scheme& s, size_t cols, const SchemeOptions& options) {
  return SchemeImportance(options.importance, cols, s.GroupCols(cols));
}

const float* DataOrNull(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

// With the rows, the second moments of the inputs are rotated: what is on their diagonal becomes its mean over each run.
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

}  // namespace

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

std::vector<float> LearnSchemeTable(const Scheme& s, const float* x, size_t rows, size_t cols, const SchemeOptions& options) {
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
  const bool by_rows = s.values != Values::kCodebook && s.values != Values::kGroupTable && !s.super.present() && s.group_rows == 1;
  SchemeWriter out(e, arrays, by_rows);
  if (by_rows) EncodeRows(e, out);
  else if (s.values == Values::kCodebook) EncodeVectors(e, out);
  else if (s.values == Values::kGroupTable) EncodeGroupTables(e, out);
  else if (s.two_level()) EncodeLevels(e, out);
  else EncodeRegions(e, out);
  out.Finish();
}

void WriteScheme(const Scheme& s, const uint8_t* codes, const float* scale, const float* shift, size_t rows, size_t cols,
                 const SchemeArrays<uint8_t>& arrays) {
  const bool sub_scales = s.two_level() && (s.super_group || s.scale.cell == Cell::kInteger);
  if (sub_scales || s.dim > 1 || s.entries.present() || s.learned)
    Fail("format '", s.name, "': codes and scales cannot be written as they are");
  CheckFits(s, rows, cols);
  const Encoder e(s, nullptr, rows, cols, nullptr, Effort::kDefault);
  SchemeWriter out(e, arrays, true);
  const size_t groups = e.groups(), band = s.GroupRows(rows), code_cols = out.code_cols(), tile = std::max<size_t>(1, out.tile_rows());
  ParallelFor(rows, std::max<size_t>(1, kTask / cols / tile) * tile, [&](size_t begin, size_t end) {
    std::vector<uint8_t> padded(tile * code_cols);
    for (size_t first = begin; first < end; first += tile) {
      const size_t count = std::min(tile, end - first);
      for (size_t r = first; r < first + count; ++r) {
        std::copy_n(codes + r * cols, cols, &padded[(r - first) * code_cols]);
        if (r % band == 0) out.PutScales(r / band, scale + r * groups, shift + r * groups);
      }
      out.PutCodes(first, padded.data(), count);
    }
  });
  out.Finish();
}

}  // namespace edgequant
