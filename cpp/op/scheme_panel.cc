#include "op/scheme_panel.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

#include "core/half.h"
#include "core/threads.h"
#include "kernels/cpu/panel_pack.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/scheme_values.h"

namespace edgequant {
namespace {

// Weights of a panel's group: the largest power of two that divides the format's.
int PanelGroup(const Scheme& s) {
  if (s.group == 0) return 256;
  return std::min(256, s.group & -s.group);
}

// The largest magnitude, as a number.
float MostOf(const float* values, size_t n) { return std::bit_cast<float>(LargestMagnitude(values, n)); }

// Whole numbers nearest to v * by, within 127: the lowest byte of a sum in which nothing else has a place.
void RoundToBytes(const float* v, size_t n, float by, uint8_t* out) {
  for (size_t k = 0; k < n; ++k) out[k] = uint8_t(std::bit_cast<uint32_t>(v[k] * by + 12582912.0f));
}

// The squared error of n numbers rounded to whole ones after they are multiplied.
double RoundingError(const float* values, size_t n, float by) {
  double error = 0;
  for (size_t k = 0; k < n; ++k) {
    const float v = values[k] * by, whole = std::nearbyint(v);
    error += double(v - whole) * double(v - whole);
  }
  return error / (double(by) * double(by));
}

// By what n numbers in [-most, most] are whole ones up to 127, if there is such a number: halves, quarters, tenths ...
std::optional<float> ExactUnit(const float* values, size_t n, float most) {
  const auto exact = [&](float by) {
    return std::all_of(values, values + n, [&](float v) { return v * by == std::nearbyint(v * by); });
  };
  for (float by = 1; by <= 64 && most * by <= 127; by *= 2)
    if (exact(by)) return by;
  for (float to = 64; to <= 127; ++to)
    if (exact(to / most)) return to / most;
  return {};
}

// The table of a panel; true if nothing was rounded.
bool SetTable(const float* values, size_t codes, PanelLayout& layout) {
  const float most = MostOf(values, codes);
  const std::optional<float> exact = most > 0 ? ExactUnit(values, codes, most) : 1.0f;
  float unit = exact.value_or(127 / most);
  double least = RoundingError(values, codes, unit);
  for (float to = 64; to < 127 && !exact; to += 0.0625f)
    if (const double error = RoundingError(values, codes, to / most); error < least) least = error, unit = to / most;
  layout.table = true;
  layout.factor = 1 / unit;
  for (size_t k = 0; k < codes; ++k) layout.values[k] = int8_t(std::nearbyint(values[k] * unit));
  return exact.has_value();
}

// What a row of the panel is: codes as stored there, scales and minima of the panel's groups.
struct RowRecipe {
  float zero = 0;              // what the panel subtracts from the codes it is given
  int code_offset = 0;         // subtracted from codes that are stored as signed bytes
  std::vector<uint8_t> bytes;  // not empty: what each code becomes, `dim` codes of the panel
  std::vector<float> numbers;  // not empty: the `dim` numbers of each code, of which the largest in a group becomes 127
  bool own_tables = false;     // of groups: entries become signed bytes, their largest the scale
  bool steps = false;          // or numbers of 6 bits, even steps from the lowest entry on
};

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

constexpr int kNumbersGroup = 64;  // most weights of a group with a scale of the panel's own

// Codebooks and large tables: the few numbers that they consist of, or each number as a signed byte. Where that rounds,
// groups get scales by what is in them: most weights in FP8, say, are far below the largest number that it has.
bool SetNumbers(const Scheme& s, const float* table, PanelLayout& layout, RowRecipe& recipe) {
  const size_t n = size_t(s.codes) * size_t(s.dim);
  const size_t all = size_t(s.dim) << s.bits;  // a foreign file's codes may lie past the table
  std::vector<float> different(table, table + n);
  std::sort(different.begin(), different.end());
  different.erase(std::unique(different.begin(), different.end()), different.end());
  if (different.size() <= 16) {
    layout.bits = different.size() <= 4 ? 2 : 4;
    recipe.bytes.resize(all);
    for (size_t k = 0; k < n; ++k)
      recipe.bytes[k] = uint8_t(std::lower_bound(different.begin(), different.end(), table[k]) - different.begin());
    return SetTable(different.data(), different.size(), layout);
  }
  const float most = std::max(different.back(), -different.front());
  const std::optional<float> unit = ExactUnit(different.data(), different.size(), most);
  layout.bits = 8;
  if (!unit) {
    layout.group = std::min(layout.group, kNumbersGroup);
    recipe.numbers.assign(table, table + n);
    recipe.numbers.resize(all);
    return false;
  }
  layout.factor = 1 / *unit;
  recipe.bytes.resize(all);
  for (size_t k = 0; k < n; ++k) recipe.bytes[k] = uint8_t(int8_t(std::nearbyint(table[k] * *unit)));
  return true;
}

// Columns sorted by their groups; each group is filled up, with columns that do not exist, to whole groups of the
// panel.
struct SortedColumns {
  std::vector<uint32_t> order;  // the columns; q.cols for one that does not exist
  std::vector<size_t> group;    // of each group of the panel
};

// Halves the panel's group until what is filled up is little.
SortedColumns SortColumns(const int32_t* groups, size_t cols, size_t count, int* panel_group) {
  std::vector<std::vector<uint32_t>> members(count);
  for (size_t c = 0; c < cols; ++c) {
    if (groups[c] < 0 || size_t(groups[c]) >= count)
      Fail("column ", c, " belongs to group ", groups[c], ", but there are ", count);
    members[size_t(groups[c])].push_back(uint32_t(c));
  }
  const auto filled = [&](size_t unit) {
    size_t n = 0;
    for (const auto& m : members) n += (m.size() + unit - 1) / unit * unit;
    return n;
  };
  while (*panel_group > 16 && filled(size_t(*panel_group)) > cols + std::max<size_t>(cols / 16, size_t(*panel_group)))
    *panel_group /= 2;
  SortedColumns sorted;
  const size_t unit = size_t(*panel_group);
  for (size_t g = 0; g < count; ++g) {
    sorted.order.insert(sorted.order.end(), members[g].begin(), members[g].end());
    sorted.order.resize((sorted.order.size() + unit - 1) / unit * unit, uint32_t(cols));
    sorted.group.resize(sorted.order.size() / unit, g);
  }
  return sorted;
}

bool LayoutOf(const SchemeView& q, PanelLayout& layout, RowRecipe& recipe) {
  const Scheme& s = *q.scheme;
  layout.group = PanelGroup(s);
  layout.bits = s.bits == 7 ? 8 : s.bits;
  layout.scale = PanelScale::kF16;
  layout.groups_per_header = 2;
  layout.minima = s.zeros != Zero::kNone;
  const bool f16 = !s.super.present() && (!s.scale.present() || s.scale.cell == Cell::kF16);
  layout.minima_in_scales = s.zeros == Zero::kInteger || s.zeros == Zero::kFloat;
  bool exact = f16 && (s.zeros == Zero::kNone || s.zeros == Zero::kInteger ||
                       (s.zeros == Zero::kMinimum && s.shift.cell == Cell::kF16));
  if (s.values == Values::kAffine && (s.zeros != Zero::kNone || s.zero == std::floor(s.zero) || s.bits > 4)) {
    const float middle = float(1 << (s.bits - 1));
    recipe.zero = s.zeros == Zero::kMinimum ? s.zero : s.zeros == Zero::kNone ? s.zero : middle;
    if (recipe.zero != std::floor(recipe.zero) || recipe.zero < 0 || recipe.zero > 2 * middle)
      recipe.zero = middle, exact = false;
    if (layout.bits == 8) {
      if (s.bits == 8 && recipe.zero != 128) recipe.zero = 128, exact = false;  // a signed byte reaches no further
      recipe.code_offset = int(recipe.zero);
    } else {
      layout.zero = int(recipe.zero) * (layout.bits == 1 ? 2 : 1);
      if (layout.bits == 1) layout.factor = 0.5f;
    }
    if (s.zeros == Zero::kNone && recipe.zero != s.zero) layout.minima = true;
  } else if (s.values == Values::kGroupTable) {
    recipe.own_tables = true;
    recipe.steps = layout.minima = s.codes <= 4;
    layout.bits = recipe.steps ? 6 : 8;
    layout.factor = recipe.steps ? 1 : 1 / 127.0f;
    exact = false;
  } else if (s.values == Values::kCodebook || (s.values == Values::kTable && s.bits > 4)) {
    exact = SetNumbers(s, s.learned ? q.table : s.table.data(), layout, recipe) && exact;
  } else if (s.values == Values::kMinifloat && s.bits > 4) {
    const CodeValues values = ValuesOf(s, nullptr);
    std::vector<float> finite(values.value, values.value + s.codes);
    for (float& v : finite)
      if (!(std::abs(v) <= s.highest)) v = 0;  // NaN and infinities, which do not occur
    exact = SetNumbers(s, finite.data(), layout, recipe) && exact;
  } else {
    const CodeValues values = ValuesOf(s, s.learned ? q.table : s.table.data());
    if (s.bits == 1 && values.value[0] == -values.value[1]) {
      layout.zero = 1;
      layout.factor = values.value[1];
    } else {
      layout.bits = std::max(layout.bits, 2);
      exact = SetTable(values.value, size_t(s.codes), layout) && exact;
    }
  }
  layout.min_factor = 1;
  return exact;
}

// Scales and minima of the rows, and codes as the panel has them.
class RowReader {
 public:
  RowReader(const SchemeView& q, const RowRecipe& recipe, size_t panel_group)
      : q_(q),
        recipe_(recipe),
        scales_(q),
        groups_(q.scheme->GroupsOf(q.cols)),
        panel_group_(panel_group),
        scale(groups_),
        shift(groups_),
        entries_(recipe.own_tables ? groups_ * size_t(q.scheme->codes) : 0),
        numbers_(recipe.numbers.empty() ? 0 : q.cols) {}

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
    for (size_t begin = 0; begin < q_.cols; begin += panel_group_) {
      const size_t end = std::min(q_.cols, begin + panel_group_);
      const float most = MostOf(&numbers_[begin], end - begin), by = most > 0 ? 127 / most : 0;
      factor[begin / panel_group_] = most / 127;
      RoundToBytes(&numbers_[begin], end - begin, by, out + begin);
    }
  }

 private:
  template <class T>
  void LookUp(const T* table, const uint8_t* codes, T* out) const {
    const size_t dim = size_t(q_.scheme->dim), n = q_.cols / dim;
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
    const size_t group = q_.scheme->GroupCols(q_.cols), count = size_t(q_.scheme->codes);
    uint8_t bytes[256] = {};
    for (size_t g = 0; g < groups_; ++g) {
      const float unit = scale[g] > 0 ? (recipe_.steps ? 1 : 127) / scale[g] : 0, from = recipe_.steps ? shift[g] : 0;
      for (size_t k = 0; k < count; ++k)
        bytes[k] = uint8_t(int8_t(std::nearbyint((entries_[g * count + k] - from) * unit)));
      for (size_t c = g * group; c < std::min(q_.cols, (g + 1) * group); ++c) out[c] = bytes[codes[c]];
    }
  }

  const SchemeView& q_;
  const RowRecipe& recipe_;
  ScaleReader scales_;
  size_t groups_, panel_group_;

 public:
  std::vector<float> scale, shift;

 private:
  std::vector<float> entries_, numbers_;
};

}  // namespace

bool CanRepack(const Scheme& s) { return PanelGroup(s) >= 16; }

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

SchemePanel Repack(const SchemeView& q, const SchemeColumns& columns) {
  const Scheme& s = *q.scheme;
  if (!CanRepack(s)) Fail("matmul has no panel for weights in ", s.name);
  SchemePanel result;
  RowRecipe recipe;
  PanelLayout layout;
  result.exact = LayoutOf(q, layout, recipe);
  const size_t groups = s.GroupsOf(q.cols), group = s.GroupCols(q.cols), code_cols = s.CodeCols(q.cols);
  const bool recoded = recipe.own_tables || !recipe.bytes.empty() || !recipe.numbers.empty(),
             sorted = columns.groups != nullptr;
  if (sorted && (recoded || s.dim != 1)) Fail("format '", s.name, "': the codes of a column are not whole numbers");
  const SortedColumns at = sorted ? SortColumns(columns.groups, q.cols, groups, &layout.group) : SortedColumns();
  const size_t cols = sorted ? at.order.size() : q.cols;
  const size_t panel_groups = layout.GroupsOf(cols), panel_group = size_t(layout.group);
  // Scales that are no f16 anyway are moved, all by one power of two, to where f16 has its full precision.
  float unit = 1;
  if (recipe.own_tables || !recipe.numbers.empty() ||
      (s.scaled() && (s.super.present() || s.scale.cell != Cell::kF16))) {
    std::vector<float> most(q.rows);
    ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
      RowReader reader(q, recipe, panel_group);
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
    if (s.transform.hadamard) input.rotation = std::make_shared<const Hadamard>(s.transform, cols, s.name);
    result.panel.input = std::make_shared<const PanelInput>(std::move(input));
  }
  uint8_t* const out = result.panel.data.get();
  const size_t panel_bytes = result.panel.panel_bytes();
  ParallelFor(result.panel.panels(), 1, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(kPanelRows * code_cols);
    std::vector<uint16_t> scales(kPanelRows * panel_groups), minima(kPanelRows * panel_groups);
    std::vector<uint8_t> own(recoded || sorted ? kPanelRows * cols : 0);
    std::vector<float> factor(panel_groups, 1.0f);
    RowReader reader(q, recipe, panel_group);
    const std::vector<float>&scale = reader.scale, &shift = reader.shift;
    for (size_t p = begin; p < end; ++p) {
      const size_t first = p * kPanelRows, count = std::min<size_t>(kPanelRows, q.rows - first);
      ReadCodes(q, first, count, codes.data(), code_cols);
      if (recipe.code_offset != 0)
        for (uint8_t& c : codes) c = uint8_t(c - recipe.code_offset);
      std::fill(scales.begin(), scales.end(), uint16_t{0});
      std::fill(minima.begin(), minima.end(), uint16_t{0});
      for (size_t r = 0; r < count; ++r) {
        reader.Read(first + r);
        if (recoded) reader.Recode(&codes[r * code_cols], &own[r * cols], factor.data());
        for (size_t k = 0; k < at.order.size(); ++k)
          own[r * cols + k] = at.order[k] < q.cols ? codes[r * code_cols + at.order[k]] : uint8_t{0};
        for (size_t k = 0; k < panel_groups && k * panel_group < cols; ++k) {
          const size_t g = sorted ? at.group[k] : k * panel_group / group;
          float minimum = shift[g];  // of the weight, beside (code - zero) * scale
          if (layout.minima_in_scales) minimum = (recipe.zero - shift[g]) * unit;
          else if (s.values == Values::kAffine && layout.minima) minimum += (recipe.zero - s.zero) * scale[g];
          scales[r * panel_groups + k] = F16FromF32(scale[g] * factor[k] / unit);
          minima[r * panel_groups + k] = F16FromF32(minimum / unit);
        }
      }
      const PanelCodes from{own.empty() ? codes.data() : own.data(), own.empty() ? code_cols : cols,
                            scales.data(), minima.data(), panel_groups, count};
      PackPanelCodes(from, layout, cols, out + p * panel_bytes);
    }
  });
  return result;
}

}  // namespace edgequant
