#include "algo/scheme.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "algo/scheme_tuning.h"
#include "core/error.h"
#include "core/threads.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/scheme_rule.h"
#include "op/planes.h"

namespace edgequant {
namespace {

constexpr size_t kTask = 1 << 15;      // weights of one task
constexpr size_t kTileGroup = 512;     // larger groups are searched one at a time
constexpr size_t kSample = 1 << 18;    // weights of a larger group that the search looks at

// Scales and shifts of all groups, and what is needed to find them.
struct Encoder {
  const Scheme& s;
  const float* x;
  size_t rows, cols;
  const float* importance;
  CodeValues values;
  SchemeTuning tuning;
  SchemeSearch search;
  bool rule;  // the reference's encoder alone

  size_t group() const { return s.GroupCols(cols); }
  size_t groups() const { return s.GroupsOf(cols); }
};

// The largest magnitude whose group has a scale: past it, scales of 16 bits would be infinite.
float LimitOf(const Scheme& s, const CodeValues& v) {
  const Cell cell = s.two_level() ? s.super.cell : s.scale.cell;
  if (!(s.scale.present() || s.entries.present()) || (s.entries.present() ? s.entries.cell : cell) != Cell::kF16) return 3.4028235e38f;
  if (s.entries.present() || s.zeros == Zero::kMinimum) return 65504.0f;
  const float reach = s.values == Values::kCodebook ? 1 : s.zeros == Zero::kNone ? std::max(v.high, -v.low) : float(v.codes - 1) / 2;
  return 65504.0f * std::max(reach, 1.0f);
}

void CheckMagnitudes(const Encoder& e, size_t first, size_t rows) {
  const float limit = LimitOf(e.s, e.values), *const x = e.x + first * e.cols;
  uint32_t bits;
  std::memcpy(&bits, &limit, sizeof bits);
  if (LargestMagnitude(x, rows * e.cols) <= bits) return;
  for (size_t i = 0;; ++i) {
    if (std::abs(x[i]) <= limit) continue;
    const size_t row = first + i / e.cols, col = i % e.cols;
    if (std::isnan(x[i])) Fail("NaN at row ", row, ", column ", col);
    if (std::isinf(x[i])) Fail("infinity at row ", row, ", column ", col);
    Fail(x[i], " at row ", row, ", column ", col, " is too large for ", e.s.name, ", which reaches ", limit);
  }
}

// Rows of small groups, or row by row.
void FindRows(const Encoder& e, const SchemeSearch& search, const float* x, size_t rows, float* scale, float* shift) {
  if (e.group() <= kTileGroup) return SearchScales(search, x, rows, e.cols, e.importance, scale, shift);
  for (size_t r = 0; r < rows; ++r)
    for (size_t g = 0; g < e.groups(); ++g) {
      const size_t c = g * e.group(), n = std::min(e.group(), e.cols - c);
      SearchGroup(search, x + r * e.cols + c, e.importance ? e.importance + c : nullptr, n, scale + r * e.groups() + g,
                  shift + r * e.groups() + g);
    }
}

void CodeRow(const Encoder& e, const float* x, const float* scale, const float* shift, uint8_t* codes) {
  for (size_t g = 0; g < e.groups(); ++g) {
    const size_t c = g * e.group(), n = std::min(e.group(), e.cols - c);
    ChooseCodes(e.search, x + c, n, scale[g], shift[g], codes + c);
  }
}

// Where the results go: integers that share words with other rows are gathered first.
class Writer {
 public:
  Writer(const Encoder& e, const SchemeArrays<uint8_t>& arrays) : e_(e), arrays_(arrays) {
    const Scheme& s = e.s;
    const Grid2 code = GridOf(s, Part::kCode, e.rows, e.cols), shift = GridOf(s, Part::kShift, e.rows, e.cols);
    code_cols_ = code.cols;
    if (!s.interleaved && !RowsAreApart(s.code, code.cols)) codes_.resize(code.rows * code.cols);
    if (!s.interleaved && s.shift.present() && s.shift.cell == Cell::kInteger && !RowsAreApart(s.shift, shift.cols))
      shifts_.resize(shift.rows * shift.cols);
  }

  size_t code_cols() const { return code_cols_; }
  // Room for the codes of a row: PutCodes then needs no copy.
  void PutCodes(size_t row, const uint8_t* codes) {
    if (!codes_.empty()) std::memcpy(codes_.data() + row * code_cols_, codes, code_cols_);
    else WriteIntegers(e_.s, Part::kCode, codes, code_cols_, e_.rows, e_.cols, row, 1, Base(Part::kCode));
  }
  // Effective scales and shifts of a row of groups, single level.
  void PutScales(size_t row, const float* scale, const float* shift) {
    const Scheme& s = e_.s;
    if (s.scale.present()) WriteFloats(s, Part::kScale, scale, e_.rows, e_.cols, row, Base(Part::kScale));
    if (s.zeros == Zero::kNone) return;
    if (s.shift.cell == Cell::kInteger) PutIntegers(Part::kShift, row, shift);
    else WriteFloats(s, Part::kShift, shift, e_.rows, e_.cols, row, Base(Part::kShift));
  }
  void PutIntegers(Part part, size_t row, const float* values) {
    const size_t n = e_.groups();
    std::vector<uint8_t> integers(n);
    for (size_t g = 0; g < n; ++g) integers[g] = uint8_t(values[g]);
    if (part == Part::kShift && !shifts_.empty()) std::memcpy(shifts_.data() + row * n, integers.data(), n);
    else WriteIntegers(e_.s, part, integers.data(), n, e_.rows, e_.cols, row, 1, Base(part));
  }
  void PutNumbers(Part part, size_t row, const float* values) {
    WriteFloats(e_.s, part, values, e_.rows, e_.cols, row, Base(part));
  }
  void Finish() {
    const Scheme& s = e_.s;
    if (!codes_.empty()) PackPlane(s.code, codes_.data(), e_.rows, code_cols_, arrays_[Part::kCode]);
    if (!shifts_.empty()) {
      const Grid2 grid = GridOf(s, Part::kShift, e_.rows, e_.cols);
      PackPlane(s.shift, shifts_.data(), grid.rows, grid.cols, arrays_[Part::kShift]);
    }
  }

 private:
  uint8_t* Base(Part part) const { return arrays_[e_.s.interleaved ? Part::kCode : part]; }

  const Encoder& e_;
  const SchemeArrays<uint8_t>& arrays_;
  size_t code_cols_;
  std::vector<uint8_t> codes_, shifts_;
};

// ---- One scale per group of a row

void EncodeRows(const Encoder& e, Writer& out) {
  const size_t grain = std::max<size_t>(1, kTask / e.cols), groups = e.groups(), code_cols = out.code_cols();
  ParallelFor(e.rows, grain, [&](size_t begin, size_t end) {
    std::vector<float> scale((end - begin) * groups), shift((end - begin) * groups);
    std::vector<uint8_t> codes(code_cols + 16);
    const float* const x = e.x + begin * e.cols;
    CheckMagnitudes(e, begin, end - begin);
    if (!e.rule) FindRows(e, e.search, x, end - begin, scale.data(), shift.data());
    for (size_t r = 0; r < end - begin; ++r) {
      float *const row_scale = &scale[r * groups], *const row_shift = &shift[r * groups];
      if (e.rule) RuleRow(e.search, x + r * e.cols, e.cols, row_scale, row_shift, codes.data());
      else CodeRow(e, x + r * e.cols, row_scale, row_shift, codes.data());
      std::fill(codes.begin() + ptrdiff_t(e.cols), codes.end(), uint8_t{0});  // stored, but no weights
      out.PutCodes(begin + r, codes.data());
      out.PutScales(begin + r, row_scale, row_shift);
    }
  });
}

}  // namespace

void QuantizeScheme(const Scheme& s, const float* x, size_t rows, size_t cols, const SchemeOptions& options,
                    const SchemeArrays<uint8_t>& arrays, std::vector<float>* table) {
  CheckScheme(s);
  CheckFits(s, rows, cols);
  const std::vector<float> importance = SchemeImportance(options.importance, cols, s.GroupCols(cols));
  Encoder e{s, x, rows, cols, importance.empty() ? nullptr : importance.data(), {}, {}, {}, false};
  (void)table;
  if (s.learned || s.two_level() || s.group_rows != 1 || s.dim > 1 || s.values == Values::kGroupTable)
    Fail("format '", s.name, "': learned tables, codebooks and second levels can be read but not written yet");
  e.values = ValuesOf(s, s.table.data());
  e.tuning = SchemeTuningOf(s, e.values, options.effort);
  e.rule = options.effort == Effort::kFast && s.rule != Rule::kNone;
  e.search.scheme = &s;
  e.search.values = &e.values;
  e.search.tuning = &e.tuning;
  e.search.scale_cell = s.scale.present() ? s.scale.cell : Cell::kF32;
  Writer out(e, arrays);
  EncodeRows(e, out);
  out.Finish();
}

}  // namespace edgequant
