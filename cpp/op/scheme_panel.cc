#include "op/scheme_panel.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/half.h"
#include "core/threads.h"
#include "kernels/cpu/panel_pack.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/scheme_values.h"
#include "op/scheme_layout.h"

namespace edgequant {
namespace {

constexpr int kLeastGroup = 4;  // smaller ones, filled up to 16, would take more memory than numbers

// The largest magnitude, as a number.
float MostOf(const float* values, size_t n) { return std::bit_cast<float>(LargestMagnitude(values, n)); }

// Whole numbers nearest to v * by, within 127: the lowest byte of a sum in which nothing else has a place.
void RoundToBytes(const float* v, size_t n, float by, uint8_t* out) {
  for (size_t k = 0; k < n; ++k) out[k] = uint8_t(std::bit_cast<uint32_t>(v[k] * by + 12582912.0f));
}

// Of few entries: the step that brings them nearest to whole ones from the lowest entry up to 63.
float BestStep(const float* entries, size_t n, float low, float high) {
  float best = 0, least = INFINITY;
  for (int last = 63; last >= 32; --last) {
    const float step = (high - low) / float(last), inverse = step > 0 ? 1 / step : 0;
    float error = 0;
    for (size_t k = 0; k < n; ++k) {
      const float u = (entries[k] - low) * inverse, gap = (u - std::nearbyint(u)) * step;
      error += gap * gap;
    }
    if (error < least) least = error, best = step;
  }
  return best;
}

// Columns sorted by their groups; each group is filled up, with columns that do not exist, to whole groups of the
// panel.
struct SortedColumns {
  std::vector<uint32_t> order;  // the columns; q.cols for one that does not exist
  std::vector<size_t> group;    // of each group of the panel
};

using Members = std::vector<std::vector<uint32_t>>;  // the columns of each group

Members MembersOf(const int32_t* groups, size_t cols, size_t count) {
  Members members(count);
  for (size_t c = 0; c < cols; ++c) {
    if (groups[c] < 0 || size_t(groups[c]) >= count)
      Fail("column ", c, " belongs to group ", groups[c], ", but there are ", count);
    members[size_t(groups[c])].push_back(uint32_t(c));
  }
  return members;
}

// Halves the panel's group until what is filled up is little.
int LargestUnit(const Members& members, size_t cols, int unit) {
  const auto filled = [&] {
    size_t n = 0;
    for (const auto& m : members) n += (m.size() + size_t(unit) - 1) / size_t(unit) * size_t(unit);
    return n;
  };
  while (unit > 16 && filled() > cols + std::max<size_t>(cols / 16, size_t(unit))) unit /= 2;
  return unit;
}

SortedColumns SortColumns(const Members& members, size_t cols, size_t unit) {
  SortedColumns sorted;
  for (size_t g = 0; g < members.size(); ++g) {
    sorted.order.insert(sorted.order.end(), members[g].begin(), members[g].end());
    sorted.order.resize((sorted.order.size() + unit - 1) / unit * unit, uint32_t(cols));
    sorted.group.resize(sorted.order.size() / unit, g);
  }
  return sorted;
}

// Codes of `dim` columns and `digits` bytes each in that order; what fills a group up repeats a code of it.
void Reorder(const std::vector<uint32_t>& order, size_t cols, size_t dim, size_t digits, const uint8_t* codes,
             uint8_t* out) {
  const uint8_t* from = codes;
  for (size_t k = 0; k < order.size(); k += dim, out += digits) {
    if (order[k] < cols) from = codes + order[k] / dim * digits;
    std::copy_n(from, digits, out);
  }
}

// A scale or minimum as the panel has it.
void StoreScale(PanelScale kind, float v, uint8_t* out) {
  if (kind == PanelScale::kF32) {
    memcpy(out, &v, sizeof v);
  } else {
    const uint16_t half = kind == PanelScale::kBF16 ? BF16FromF32(v) : F16FromF32(v);
    memcpy(out, &half, sizeof half);
  }
}

// Scales and minima of the rows, and codes as the panel has them.
class RowReader {
 public:
  // group_of: the format's group of each group of the panel.
  RowReader(const SchemeView& q, const RowRecipe& recipe, size_t cols, size_t panel_group,
            const std::vector<size_t>& group_of)
      : q_(q),
        recipe_(recipe),
        scales_(q),
        groups_(q.scheme->GroupsOf(q.cols)),
        cols_(cols),
        panel_group_(panel_group),
        group_of_(group_of),
        scale(groups_),
        shift(groups_),
        entries_(recipe.own_tables ? groups_ * size_t(q.scheme->codes) : 0),
        numbers_(recipe.numbers.empty() ? 0 : cols) {}

  // scale and shift of a row; the scale of a table is its largest magnitude, or the step between its lowest entry, the
  // shift, and the highest.
  void Read(size_t row) {
    scales_.Read(row, scale.data(), shift.data(), entries_.empty() ? nullptr : entries_.data());
    const size_t codes = size_t(q_.scheme->codes);
    for (size_t g = 0; g < groups_ && recipe_.own_tables; ++g) {
      const float* const entries = &entries_[g * codes];
      if (recipe_.steps) {
        const auto [low, high] = std::minmax_element(entries, entries + codes);
        shift[g] = *low;
        scale[g] = BestStep(entries, codes, *low, *high);
        continue;
      }
      scale[g] = 0;
      for (size_t k = 0; k < codes; ++k) scale[g] = std::max(scale[g], std::abs(entries[k]));
    }
  }
  // Codes of the row that was read, from those of the format, and by what each group of the panel multiplies its scale.
  void Recode(const uint8_t* codes, uint8_t* out, float* factor) {
    if (recipe_.own_tables) return RecodeTables(codes, out);
    if (recipe_.numbers.empty()) return LookUp(recipe_.bytes.data(), codes, out);
    LookUp(recipe_.numbers.data(), codes, numbers_.data());
    for (size_t begin = 0; begin < cols_; begin += panel_group_) {
      const size_t end = std::min(cols_, begin + panel_group_);
      const float most = MostOf(&numbers_[begin], end - begin), by = most > 0 ? 127 / most : 0;
      factor[begin / panel_group_] = most / 127;
      RoundToBytes(&numbers_[begin], end - begin, by, out + begin);
    }
  }

 private:
  template <class T>
  void LookUp(const T* table, const uint8_t* codes, T* out) const {
    const size_t dim = size_t(q_.scheme->dim), n = cols_ / dim;
    const int digit = q_.scheme->bits / 2;
    if (dim == 1)
      for (size_t c = 0; c < n; ++c) out[c] = table[codes[c]];
    else if (q_.scheme->digits() == 1)
      for (size_t c = 0; c < n; ++c) std::copy_n(table + codes[c] * dim, dim, out + c * dim);
    else
      for (size_t c = 0; c < n; ++c)
        std::copy_n(table + size_t(codes[2 * c] | codes[2 * c + 1] << digit) * dim, dim, out + c * dim);
  }
  void RecodeTables(const uint8_t* codes, uint8_t* out) const {
    const size_t count = size_t(q_.scheme->codes);
    uint8_t bytes[256] = {};
    for (size_t p = 0; p < group_of_.size(); ++p) {
      const size_t g = group_of_[p];
      const float unit = scale[g] > 0 ? (recipe_.steps ? 1 : 127) / scale[g] : 0, from = recipe_.steps ? shift[g] : 0;
      for (size_t k = 0; k < count && (p == 0 || g != group_of_[p - 1]); ++k)
        bytes[k] = uint8_t(int8_t(std::nearbyint((entries_[g * count + k] - from) * unit)));
      for (size_t c = p * panel_group_; c < std::min(cols_, (p + 1) * panel_group_); ++c) out[c] = bytes[codes[c]];
    }
  }

  const SchemeView& q_;
  const RowRecipe& recipe_;
  ScaleReader scales_;
  size_t groups_, cols_, panel_group_;
  const std::vector<size_t>& group_of_;

 public:
  std::vector<float> scale, shift;

 private:
  std::vector<float> entries_, numbers_;
};

}  // namespace

bool CanRepack(const Scheme& s) { return s.group == 0 || s.group >= kLeastGroup; }

bool HoldsNumbersOnly(const SchemeView& q) {
  const Scheme& s = *q.scheme;
  if (s.values != Values::kMinifloat) return true;
  const CodeValues values = ValuesOf(s, nullptr);
  uint8_t no_number[256];
  for (int code = 0; code < 256; ++code)
    no_number[code] = code < s.codes && !(std::abs(values.value[code]) <= s.highest);
  const size_t code_cols = s.CodeCols(q.cols);
  std::atomic<bool> all{true};
  ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(code_cols);
    for (size_t r = begin; r < end; ++r) {
      ReadCodes(q, r, 1, codes.data(), code_cols);
      uint8_t found = 0;
      for (size_t c = 0; c < q.cols; ++c) found |= no_number[codes[c]];
      if (found) all = false;
    }
  });
  return all;
}

SchemePanel Repack(const SchemeView& q, const SchemeColumns& columns, bool exact) {
  const Scheme& s = *q.scheme;
  if (!CanRepack(s)) Fail("matmul has no panel for weights in ", s.name);
  SchemeLayout made = PanelLayoutOf(q, exact);
  const RowRecipe& recipe = made.recipe;
  PanelLayout& layout = made.panel;
  SchemePanel result;
  result.exact = made.exact_values && made.exact_scales;
  const size_t groups = s.GroupsOf(q.cols), group = s.GroupCols(q.cols), code_cols = s.CodeCols(q.cols);
  const bool recoded = recipe.own_tables || !recipe.bytes.empty() || !recipe.numbers.empty(),
             named = columns.groups != nullptr, sorted = named || s.group % 16 != 0;
  if (named && (recoded || s.dim != 1)) Fail("format '", s.name, "': the codes of a column are not whole numbers");
  SortedColumns at;
  if (sorted) {
    std::vector<int32_t> regular(named ? 0 : q.cols);
    for (size_t c = 0; c < regular.size(); ++c) regular[c] = int32_t(c / group);
    const Members members = MembersOf(named ? columns.groups : regular.data(), q.cols, groups);
    if (named) layout.group = LargestUnit(members, q.cols, layout.group);
    at = SortColumns(members, q.cols, size_t(layout.group));
  }
  const size_t cols = sorted ? at.order.size() : q.cols;
  const size_t panel_groups = layout.GroupsOf(cols), panel_group = size_t(layout.group);
  std::vector<size_t> group_of = at.group;
  for (size_t k = 0; k * panel_group < cols && !sorted; ++k) group_of.push_back(k * panel_group / group);
  // Scales that are no f16 anyway are moved, all by one power of two, to where f16 has its full precision.
  float unit = 1;
  if (made.one_scale) {
    RowReader reader(q, recipe, cols, panel_group, group_of);
    reader.Read(0);
    if (const float scale = std::abs(reader.scale[0]); scale > 0 && std::isfinite(scale)) unit = scale;
  } else if (!result.exact && layout.scale == PanelScale::kF16 &&
             (recipe.own_tables || !recipe.numbers.empty() ||
              (s.scaled() && (s.super.present() || s.scale.cell != Cell::kF16)))) {
    std::vector<float> most(q.rows);
    ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
      RowReader reader(q, recipe, cols, panel_group, group_of);
      for (size_t r = begin; r < end; ++r) {
        reader.Read(r);
        for (size_t g = 0; g < groups; ++g) {
          most[r] = std::max(most[r], std::abs(reader.scale[g]));
          if (s.zeros == Zero::kMinimum || recipe.steps) most[r] = std::max(most[r], std::abs(reader.shift[g]) / 64);
        }
      }
    });
    const float highest = recipe.numbers.empty() ? 127 : MostOf(recipe.numbers.data(), recipe.numbers.size());
    const float all = *std::max_element(most.begin(), most.end()) * (highest / 127);
    int exponent = 0;
    if (all > 0 && std::isfinite(all)) std::frexp(all, &exponent);
    unit = std::ldexp(1.0f, std::max(-100, std::min(exponent, 100)) - 8);
  }
  layout.factor *= unit;
  layout.min_factor *= unit;
  result.panel = AllocatePanel(s.name, layout, q.rows, cols);
  if (s.transform.hadamard || sorted || columns.scale) {
    PanelInput input;
    input.cols = q.cols;
    if (columns.scale) input.scale.assign(columns.scale, columns.scale + q.cols);
    input.order = at.order;
    if (s.transform.hadamard) input.rotation = std::make_shared<const Hadamard>(s.transform, q.cols, s.name);
    result.panel.input = std::make_shared<const PanelInput>(std::move(input));
  }
  uint8_t* const out = result.panel.data.get();
  const size_t panel_bytes = result.panel.panel_bytes(), number = layout.number_bytes();
  const size_t ordered_cols = sorted ? cols / size_t(s.dim) * size_t(s.digits()) : code_cols;
  ParallelFor(result.panel.panels(), 1, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(kPanelRows * code_cols), ordered(sorted ? kPanelRows * ordered_cols : 0);
    std::vector<uint8_t> scales(kPanelRows * panel_groups * number), minima(layout.minima ? scales.size() : 0);
    std::vector<uint8_t> own(recoded ? kPanelRows * cols : 0);
    std::vector<float> factor(panel_groups, 1.0f);
    RowReader reader(q, recipe, cols, panel_group, group_of);
    const std::vector<float>&scale = reader.scale, &shift = reader.shift;
    for (size_t p = begin; p < end; ++p) {
      const size_t first = p * kPanelRows, count = std::min<size_t>(kPanelRows, q.rows - first);
      ReadCodes(q, first, count, codes.data(), code_cols);
      if (recipe.code_offset != 0)
        for (uint8_t& c : codes) c = uint8_t(c - recipe.code_offset);
      for (size_t r = 0; r < count; ++r) {
        const uint8_t* row = &codes[r * code_cols];
        if (sorted) {
          uint8_t* const to = &ordered[r * ordered_cols];
          Reorder(at.order, q.cols, size_t(s.dim), size_t(s.digits()), row, to);
          row = to;
        }
        reader.Read(first + r);
        if (recoded) reader.Recode(row, &own[r * cols], factor.data());
        for (size_t k = 0; k < group_of.size(); ++k) {
          const size_t g = group_of[k], to = (r * panel_groups + k) * number;
          StoreScale(layout.scale, scale[g] * factor[k] / unit, &scales[to]);
          if (!layout.minima) continue;
          float minimum = shift[g];  // of the weight, beside (code - zero) * scale
          if (layout.minima_in_scales) minimum = (recipe.zero - shift[g]) * unit;
          else if (s.values == Values::kAffine) minimum += (recipe.zero - s.zero) * scale[g];
          StoreScale(layout.scale, minimum / unit, &minima[to]);
        }
      }
      const std::vector<uint8_t>& rows = recoded ? own : sorted ? ordered : codes;
      const PanelCodes from{rows.data(), recoded ? cols : ordered_cols, scales.data(), minima.data(), panel_groups,
                            count};
      PackPanelCodes(from, layout, cols, out + p * panel_bytes);
    }
  });
  return result;
}

Panel RepackExactly(const SchemeView& q) {
  if (CanRepack(*q.scheme) && HoldsNumbersOnly(q) && PanelLayoutOf(q, true).exact_values)
    return Repack(q, {}, true).panel;
  return KeepRows(q);
}

}  // namespace edgequant
