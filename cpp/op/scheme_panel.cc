#include "op/scheme_panel.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "core/threads.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/panel_pack.h"
#include "kernels/cpu/scheme_values.h"
#include "op/codes_in_place.h"
#include "op/scheme_reader.h"

namespace edgequant {
namespace {

constexpr int kLeastGroup = 4;  // smaller ones, filled up to 16, would take more memory than numbers

// Codes of one or two bytes in another order.
template <class Code>
void Reorder(const std::vector<uint32_t>& source, const uint8_t* codes, uint8_t* out) {
  const size_t n = source.size(), size = sizeof(Code);
  const uint32_t* const from = source.data();
  for (size_t i = 0; i < n; ++i) memcpy(out + i * size, codes + from[i] * size, size);
}

// n scales or minima as the panel has them.
void StoreScales(PanelScale kind, const float* v, size_t n, uint8_t* out) {
  if (kind == PanelScale::kF32) memcpy(out, v, n * sizeof(float));
  else if (kind == PanelScale::kBF16) DemoteToBF16(v, n, reinterpret_cast<uint16_t*>(out));
  else DemoteToF16(v, n, reinterpret_cast<uint16_t*>(out));
}

// By what scales that are no f16 anyway are divided: the one there is, or a power of two that moves them to where f16
// has its full precision.
float UnitOf(const SchemeView& q, const SchemeLayout& made, const RowPlaces& places) {
  const Scheme& s = *q.scheme;
  const RowRecipe& recipe = made.recipe;
  if (made.one_scale) {
    RowReader reader(q, recipe, places);
    reader.Read(0);
    const float scale = std::abs(reader.scale[0]);
    return scale > 0 && std::isfinite(scale) ? scale : 1;
  }
  const bool own = recipe.own_tables || !recipe.numbers.empty(),
             wide = s.scaled() && (s.super.present() || s.scale.cell != Cell::kF16);
  if ((made.exact_values && made.exact_scales) || made.panel.scale != PanelScale::kF16 || !(own || wide)) return 1;
  std::vector<float> most(q.rows);
  ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
    RowReader reader(q, recipe, places);
    for (size_t r = begin; r < end; ++r) {
      reader.Read(r);
      most[r] = MostOf(reader.scale.data(), reader.scale.size());
      if (s.zeros == Zero::kMinimum || recipe.steps)
        most[r] = std::max(most[r], MostOf(reader.shift.data(), reader.shift.size()) / 64);
    }
  });
  const float highest = recipe.numbers.empty() ? 127 : MostOf(recipe.numbers.data(), recipe.numbers.size());
  const float all = *std::max_element(most.begin(), most.end()) * (highest / 127);
  int exponent = 0;
  if (all > 0 && std::isfinite(all)) std::frexp(all, &exponent);
  return std::ldexp(1.0f, std::max(-100, std::min(exponent, 100)) - 8);
}

// Makes panels of 16 rows, on one thread.
class PanelMaker {
 public:
  static constexpr size_t kTogether = 8;

  PanelMaker(const SchemeView& q, const SchemeLayout& made, const RowPlaces& places, const CodesInPlace& in_place,
             float unit)
      : q_(q), s_(*q.scheme), recipe_(made.recipe), layout_(made.panel), places_(places), in_place_(in_place),
        unit_(unit), groups_(layout_.GroupsOf(places.cols)), number_(layout_.number_bytes()),
        code_cols_(s_.CodeCols(q.cols)), reader_(q, recipe_, places), factor_(groups_, 1.0f), numbers_(groups_),
        scales_(kPanelRows * groups_ * number_), minima_(layout_.minima ? scales_.size() : 0) {
    code_stride_ = in_place.side_by_side ? (in_place.row_bytes + 3) / 4 * 4 : in_place ? 0 : code_cols_;
    codes_.resize(kTogether * kPanelRows * code_stride_);
    if (in_place) return;
    if (!places.order.empty()) ordered_.resize(kPanelRows * OrderedCols());
    if (recipe_.Recodes()) own_.resize(kPanelRows * places.cols);
  }

  // Panels [begin, end), at most kTogether, to `out`.
  void Make(size_t begin, size_t end, uint8_t* out) {
    const size_t rows = std::min(end * kPanelRows, q_.rows) - begin * kPanelRows;
    const size_t bytes = layout_.PanelBytes(places_.cols);
    if (in_place_.side_by_side) in_place_.CopyWords(begin * kPanelRows, rows, codes_.data());
    else if (!in_place_) ReadCodes(begin * kPanelRows, rows);
    for (size_t p = begin; p < end; ++p, out += bytes) {
      const size_t first = p * kPanelRows, count = std::min<size_t>(kPanelRows, q_.rows - first);
      const uint8_t* const codes = codes_.data() + (p - begin) * kPanelRows * code_stride_;
      for (size_t r = 0; r < count; ++r) {
        reader_.Read(first + r);
        if (!in_place_) MakeCodes(codes + r * code_cols_, r);
        MakeScales(r);
      }
      PanelCodes from{};
      from.scales = scales_.data(), from.minima = minima_.data(), from.group_stride = groups_, from.count = count;
      if (in_place_) {
        from.plan = &in_place_.PlanOf(first), from.row_bytes = in_place_.row_bytes, from.minus = in_place_.minus;
        from.side_by_side = in_place_.side_by_side;
        from.codes = from.side_by_side ? codes : in_place_.At(first);
        from.code_stride = from.side_by_side ? kPanelLine : in_place_.stride;
      } else {
        const uint8_t* const changed = !own_.empty() ? own_.data() : ordered_.empty() ? nullptr : ordered_.data();
        from.plan = &BytePlan(layout_.bits), from.row_bytes = places_.cols;
        from.codes = changed ? changed : codes;
        from.code_stride = changed == nullptr ? code_cols_ : !own_.empty() ? places_.cols : OrderedCols();
      }
      PackPanelCodes(from, layout_, places_.cols, out);
    }
  }

 private:
  size_t OrderedCols() const { return places_.cols / size_t(s_.dim) * size_t(s_.digits()); }

  void ReadCodes(size_t first, size_t rows) {
    edgequant::ReadCodes(q_, first, rows, codes_.data(), code_cols_);
    if (recipe_.code_offset == 0) return;
    for (size_t i = 0; i < rows * code_cols_; ++i) codes_[i] = uint8_t(codes_[i] - recipe_.code_offset);
  }
  void MakeCodes(const uint8_t* row, size_t r) {
    if (!ordered_.empty()) {
      uint8_t* const to = &ordered_[r * OrderedCols()];
      if (s_.digits() == 1) Reorder<uint8_t>(places_.source, row, to);
      else Reorder<uint16_t>(places_.source, row, to);
      row = to;
    }
    if (!own_.empty()) reader_.Recode(row, &own_[r * places_.cols], factor_.data());
  }

  void MakeScales(size_t r) {
    const std::vector<size_t>& group_of = places_.group_of;
    const std::vector<float>&scale = reader_.scale, &shift = reader_.shift;
    const size_t n = group_of.size(), at = r * groups_ * number_;
    for (size_t k = 0; k < n; ++k) numbers_[k] = scale[group_of[k]] * factor_[k] / unit_;
    StoreScales(layout_.scale, numbers_.data(), groups_, &scales_[at]);
    if (!layout_.minima) return;
    const float zero = recipe_.zero, beside = recipe_.beside;
    if (layout_.minima_in_scales)
      for (size_t k = 0; k < n; ++k) numbers_[k] = zero - shift[group_of[k]];
    else  // of the weight, beside (code - zero) * scale
      for (size_t k = 0; k < n; ++k) numbers_[k] = (shift[group_of[k]] + beside * scale[group_of[k]]) / unit_;
    StoreScales(layout_.scale, numbers_.data(), groups_, &minima_[at]);
  }

  const SchemeView& q_;
  const Scheme& s_;
  const RowRecipe& recipe_;
  const PanelLayout& layout_;
  const RowPlaces& places_;
  const CodesInPlace& in_place_;
  const float unit_;
  const size_t groups_, number_, code_cols_;
  size_t code_stride_;
  RowReader reader_;
  std::vector<float> factor_, numbers_;
  std::vector<uint8_t> scales_, minima_, codes_, ordered_, own_;
};

}  // namespace

bool CanRepack(const Scheme& s) { return s.group == 0 || s.group >= kLeastGroup; }

bool HoldsNumbersOnly(const SchemeView& q) {
  const Scheme& s = *q.scheme;
  if (s.values != Values::kMinifloat) return true;
  const CodeValues values = ValuesOf(s, nullptr);
  const uint8_t magnitude = uint8_t((1 << (s.bits - 1)) - 1);  // which grows with the code's
  uint8_t last = magnitude;
  while (last > 0 && !(values.value[last] <= s.highest)) --last;
  const size_t code_cols = s.CodeCols(q.cols);
  std::atomic<bool> all{true};
  ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(code_cols);
    for (size_t r = begin; r < end; ++r) {
      ReadCodes(q, r, 1, codes.data(), code_cols);
      uint8_t most = 0;
      for (size_t c = 0; c < q.cols; ++c) most = std::max(most, uint8_t(codes[c] & magnitude));
      if (most > last) all = false;
    }
  });
  return all;
}

SchemePanel Repack(const SchemeView& q, const SchemeColumns& columns, bool exact) {
  const Scheme& s = *q.scheme;
  if (!CanRepack(s)) Fail("matmul has no panel for weights in ", s.name);
  SchemeLayout made = PanelLayoutOf(q, exact);
  const bool recoded = made.recipe.Recodes();
  if (columns.groups && (recoded || s.dim != 1))
    Fail("format '", s.name, "': the codes of a column are not whole numbers");
  const RowPlaces places(q, columns.groups, &made.panel.group);
  const bool in_order = places.order.empty();
  const CodesInPlace in_place =
      recoded || !in_order ? CodesInPlace() : CodesInPlace(q, made.panel, made.recipe.code_offset);
  const float unit = UnitOf(q, made, places);
  made.panel.factor *= unit;
  made.panel.min_factor *= unit;
  SchemePanel result;
  result.exact = made.exact_values && made.exact_scales;
  result.panel = AllocatePanel(s.name, made.panel, q.rows, places.cols);
  if (s.transform.hadamard || !in_order || columns.scale) {
    PanelInput input;
    input.cols = q.cols;
    if (columns.scale) input.scale.assign(columns.scale, columns.scale + q.cols);
    input.order = places.order;
    if (s.transform.hadamard) input.rotation = std::make_shared<const Hadamard>(s.transform, q.cols, s.name);
    result.panel.input = std::make_shared<const PanelInput>(std::move(input));
  }
  uint8_t* const out = result.panel.data.get();
  const size_t panel_bytes = result.panel.panel_bytes();
  ParallelFor(result.panel.panels(), PanelMaker::kTogether, [&](size_t begin, size_t end) {
    PanelMaker(q, made, places, in_place, unit).Make(begin, end, out + begin * panel_bytes);
  });
  return result;
}

Panel RepackExactly(const SchemeView& q) {
  if (CanRepack(*q.scheme) && HoldsNumbersOnly(q) && PanelLayoutOf(q, true).exact_values)
    return Repack(q, {}, true).panel;
  return KeepRows(q);
}

}  // namespace edgequant
