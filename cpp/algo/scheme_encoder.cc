#include "algo/scheme_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "algo/scheme_tuning.h"
#include "core/error.h"
#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/cpu/round.h"
#include "op/planes.h"

namespace edgequant {
namespace {

constexpr size_t kTileGroup = 512;  // larger groups are searched one at a time

// The largest magnitude whose group has a scale: past it, scales or decoded weights would be infinite.
float LimitOf(const Scheme& s, const CodeValues& v) {
  const auto half = [](const Plane& p) { return p.present() && p.cell == Cell::kF16; };
  const bool minima = s.zeros == Zero::kMinimum, half_scale = s.scaled() && half(s.super.present() ? s.super : s.scale);
  const bool half_minima = minima && (half_scale || half(s.super_shift.present() ? s.super_shift : s.shift));
  if (half(s.entries) || half_minima) return 65504.0f;
  if (!half_scale) return kLargestWeight;
  const float ends = s.zeros == Zero::kNone ? std::max(v.high, -v.low) : float(v.codes - 1) / 2;
  return 65504.0f * (s.values == Values::kCodebook ? 1 : std::max(ends, 1.0f));
}

// The best fit need not be the best one rounded to few bits.
bool IsCoarse(const Plane& p) {
  return p.present() && p.cell != Cell::kF32 && p.cell != Cell::kF16 && p.cell != Cell::kInteger;
}

uint32_t BitsOf(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

}  // namespace

void Encoder::UseTable(const std::vector<float>& t) {
  table = t;
  values = ValuesOf(s, table.data());
  tuning = SchemeTuningOf(s, values, effort);
  const bool coarse = s.rule == Rule::kNone && !s.super.present() &&
                      (IsCoarse(s.scale) || (s.zeros == Zero::kMinimum && IsCoarse(s.shift)));
  SchemeTuning* of = &tuning;
  for (int how = int(effort) - 1; how >= 0 && (coarse || how > 0); --how) {
    lower[how] = SchemeTuningOf(s, values, Effort(how));
    of->lower = &lower[how];
    of = &lower[how];
  }
  search.scheme = &s;
  search.values = &values;
  search.tuning = &tuning;
  limit = LimitOf(s, values);
  search.scale_cell = s.super.present() ? Cell::kF32 : s.scale.present() ? s.scale.cell : Cell::kF32;
}

void CheckBelow(const Scheme& s, const float* x, size_t first, size_t rows, size_t cols, float limit) {
  if (LargestMagnitude(x, rows * cols) <= BitsOf(limit)) return;
  for (size_t i = 0;; ++i) {
    if (std::abs(x[i]) <= limit) continue;
    const size_t row = first + i / cols, col = i % cols;
    if (std::isnan(x[i])) Fail("NaN at row ", row, ", column ", col);
    if (std::isinf(x[i])) Fail("infinity at row ", row, ", column ", col);
    Fail(x[i], " at row ", row, ", column ", col, " is too large for ", s.name, ", which reaches ", limit);
  }
}

void CheckMagnitudes(const Encoder& e, size_t first, size_t rows) {
  CheckBelow(e.s, e.x + first * e.cols, first, rows, e.cols, e.limit);
}
void CheckMagnitudes(const Encoder& e, size_t first, size_t rows, uint32_t largest) {
  if (largest > BitsOf(e.limit)) CheckMagnitudes(e, first, rows);
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

SchemeWriter::SchemeWriter(const Encoder& e, const SchemeArrays<uint8_t>& arrays) : e_(e), arrays_(arrays) {
  const Scheme& s = e.s;
  code_cols_ = GridOf(s, Part::kCode, e.rows, e.cols).cols;
  if (s.interleaved) return;
  const bool in_runs = !s.two_level() && !RowsAreApart(s.code, code_cols_);
  tiled_ = in_runs && PlaneTile::Fits(s.code);
  slotted_ = in_runs && Slots().lanes() > 0;
  Scratch unused;
  if (tiled_) tile_rows_ = Tile(unused).rows();
  const auto gather = [&](Part part, std::vector<uint8_t>& to) {
    const Plane& p = PlaneOf(s, part);
    const Grid2 grid = GridOf(s, part, e.rows, e.cols);
    if (p.present() && p.cell == Cell::kInteger && !RowsAreApart(p, grid.cols)) to.resize(grid.rows * grid.cols);
  };
  if (!tiled_ && !slotted_) gather(Part::kCode, codes_);
  gather(Part::kShift, shifts_);
  gather(Part::kScale, scales_);
}

void SchemeWriter::ForRuns(size_t rows, const std::function<void(size_t first, size_t end)>& body) const {
  const size_t all = e_.rows, lanes = slotted_ ? Slots().lanes() : 0, slots = slotted_ ? Slots().slots() : 1;
  const size_t unit = slotted_ ? lanes * slots : tile_rows_;
  if (unit < all || !slotted_) return ParallelFor(all, std::max<size_t>(1, rows / unit) * unit, body);
  ParallelFor(lanes, std::max<size_t>(1, rows / slots), [&](size_t begin, size_t end) {
    for (size_t first = 0; first + begin < all; first += lanes) body(first + begin, std::min(all, first + end));
  });
}

SchemeWriter::Run::Run(SchemeWriter& out) : out_(out) {
  thread_local Scratch memory;
  if (out.tiled_) tile_.emplace(out.Tile(memory));
  if (out.slotted_) slots_.emplace(out.Slots());
}

void SchemeWriter::Run::Put(size_t row, const uint8_t* codes, size_t rows) {
  for (size_t r = 0; slots_ && r < rows; ++r)
    slots_->Put(row + r, codes + r * out_.code_cols_, out_.Base(Part::kCode));
  if (slots_) return;
  if (!tile_) return out_.PutCodes(row, codes, rows);
  for (size_t n; rows > 0; rows -= n, row += n, codes += n * out_.code_cols_) {
    const size_t first = row / tile_->rows() * tile_->rows(), end = std::min(first + tile_->rows(), out_.e_.rows);
    n = std::min(rows, end - row);
    if (row == first) tile_->Begin(first, end - first);
    tile_->Put(row, codes, n);
    if (row + n == end) tile_->Write(out_.Base(Part::kCode));
  }
}

void SchemeWriter::PutCodes(size_t row, const uint8_t* codes, size_t rows) {
  if (!codes_.empty()) std::memcpy(codes_.data() + row * code_cols_, codes, rows * code_cols_);
  else WriteIntegers(e_.s, Part::kCode, codes, code_cols_, e_.rows, e_.cols, row, rows, Base(Part::kCode));
}

CodePlace SchemeWriter::CodesInPlace(size_t row) const {
  const Plane& p = e_.s.code;
  const bool pairs = p.bits == 4 && !p.high_first && p.offset == 0 && code_cols_ == e_.cols &&
                     CodePlace::MayPair(e_.cols, e_.group());
  if (e_.s.interleaved || (p.bits != 8 && !pairs) || p.trits || !RowsAreStreams(p, code_cols_)) return {};
  const CodePlace all = {Base(Part::kCode), uint8_t(p.offset), pairs};
  return RowBytesApart(p, code_cols_) == all.Bytes(code_cols_) ? all.From(row * code_cols_) : CodePlace();
}

void SchemeWriter::PutScales(size_t row, const float* scale, const float* shift, size_t rows) {
  const Scheme& s = e_.s;
  if (s.scale.present()) PutNumbers(Part::kScale, row, scale, rows);
  if (s.super.present()) {  // the one scale of the tensor; 1 over scales that are groups' own
    const float stored = s.two_level() ? 1 : !s.divides ? *scale : *scale != 0 ? 1 / *scale : 1;
    PutNumbers(Part::kSuper, 0, &stored);
  }
  if (s.zeros == Zero::kNone) return;
  if (s.shift.cell == Cell::kInteger) PutIntegers(Part::kShift, row, shift, rows);
  else PutNumbers(Part::kShift, row, shift, rows);
}

void SchemeWriter::PutIntegers(Part part, size_t row, const float* values, size_t rows) {
  const size_t cols = e_.groups(), n = rows * cols;
  std::vector<uint8_t>& gathered = part == Part::kShift ? shifts_ : scales_;
  thread_local Scratch memory;
  uint8_t* const integers = gathered.empty() ? memory.Get<uint8_t>(n) : gathered.data() + row * cols;
  for (size_t g = 0; g < n; ++g) integers[g] = uint8_t(values[g]);
  if (gathered.empty()) WriteIntegers(e_.s, part, integers, cols, e_.rows, e_.cols, row, rows, Base(part));
}

void SchemeWriter::PutNumbers(Part part, size_t row, const float* values, size_t rows) {
  WriteFloats(e_.s, part, values, e_.rows, e_.cols, row, rows, Base(part));
}

void SchemeWriter::Finish() {
  const auto pack = [&](Part part, const std::vector<uint8_t>& from) {
    const Grid2 grid = GridOf(e_.s, part, e_.rows, e_.cols);
    if (!from.empty()) PackPlane(PlaneOf(e_.s, part), from.data(), grid.rows, grid.cols, arrays_[part]);
  };
  pack(Part::kCode, codes_);
  pack(Part::kShift, shifts_);
  pack(Part::kScale, scales_);
}

}  // namespace edgequant
