#include "op/scheme_layout.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

#include "kernels/cpu/round.h"
#include "op/scheme_rows.h"

namespace edgequant {
namespace {

constexpr int kNumbersGroup = 64;  // most weights of a group with a scale of the panel's own

// The largest magnitude, as a number.
float MostOf(const float* values, size_t n) { return std::bit_cast<float>(LargestMagnitude(values, n)); }

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

// What holds the scales and minima of a format as they are.
PanelScale StoredScale(const Scheme& s) {
  const auto kind = [](const Plane& p) {
    switch (p.cell) {
      case Cell::kF16: return PanelScale::kF16;
      case Cell::kBF16:
      case Cell::kE8M0:
      case Cell::kE4M3: return PanelScale::kBF16;
      default: return PanelScale::kF32;
    }
  };
  if (s.super.present()) return PanelScale::kF32;
  const PanelScale scale = s.scale.present() ? kind(s.scale) : PanelScale::kF16;
  const bool same = s.zeros != Zero::kMinimum || kind(s.shift) == scale;
  return same ? scale : PanelScale::kF32;
}

bool HasOneScale(const SchemeView& q) {
  const Scheme& s = *q.scheme;
  if (!s.scaled()) return false;
  const auto is_one = [&](Part part) {
    const Grid2 grid = GridOf(s, part, q.rows, q.cols);
    return !PlaneOf(s, part).present() || grid.rows * grid.cols == 1;
  };
  return is_one(Part::kScale) && is_one(Part::kSuper);
}

}  // namespace

int PanelGroup(const Scheme& s) {
  if (s.group % 16 == 0) return s.group == 0 ? 256 : std::min(256, s.group & -s.group);
  const auto bits = [&](int unit) {  // of the group, filled up to whole units
    return (s.group + unit - 1) / unit * (unit * s.bits + (s.zeros == Zero::kNone ? 16 : 32));
  };
  int best = 256;
  for (int unit = 128; unit >= 16; unit /= 2)
    if (bits(unit) < bits(best)) best = unit;
  return best;
}

SchemeLayout PanelLayoutOf(const SchemeView& q, bool exact) {
  const Scheme& s = *q.scheme;
  SchemeLayout made;
  PanelLayout& layout = made.panel;
  RowRecipe& recipe = made.recipe;
  layout.group = PanelGroup(s);
  layout.bits = s.bits == 7 ? 8 : s.bits;
  layout.groups_per_header = 2;
  layout.minima = s.zeros != Zero::kNone;
  layout.minima_in_scales = s.zeros == Zero::kInteger || s.zeros == Zero::kFloat;
  bool whole_zeros = s.zeros != Zero::kFloat;  // scales and minima are what is stored of them
  if (s.values == Values::kAffine && (s.zeros != Zero::kNone || s.zero == std::floor(s.zero) || s.bits > 4)) {
    const float middle = float(1 << (s.bits - 1));
    recipe.zero = s.zeros == Zero::kMinimum ? s.zero : s.zeros == Zero::kNone ? s.zero : middle;
    if (recipe.zero != std::floor(recipe.zero) || recipe.zero < 0 || recipe.zero > 2 * middle)
      recipe.zero = middle, whole_zeros = false;
    if (layout.bits == 8) {
      if (s.bits == 8 && recipe.zero != 128) recipe.zero = 128, whole_zeros = false;  // as far as a signed byte reaches
      recipe.code_offset = int(recipe.zero);
    } else {
      layout.zero = int(recipe.zero) * (layout.bits == 1 ? 2 : 1);
      if (layout.bits == 1) layout.factor = 0.5f;
    }
    recipe.beside = recipe.zero - s.zero;
    if (s.zeros == Zero::kNone && recipe.beside != 0) layout.minima = true;
  } else if (s.values == Values::kGroupTable) {
    recipe.own_tables = true;
    recipe.steps = layout.minima = s.codes <= 4;
    layout.bits = recipe.steps ? 6 : 8;
    layout.factor = recipe.steps ? 1 : 1 / 127.0f;
    made.exact_values = false;
  } else if (s.values == Values::kCodebook || (s.values == Values::kTable && s.bits > 4)) {
    made.exact_values = SetNumbers(s, s.learned ? q.table : s.table.data(), layout, recipe);
  } else if (s.values == Values::kMinifloat && s.bits > 4) {
    const CodeValues values = ValuesOf(s, nullptr);
    std::vector<float> finite(values.value, values.value + s.codes);
    for (float& v : finite)
      if (!(std::abs(v) <= s.highest)) v = 0;  // NaN and infinities, which do not occur
    made.exact_values = SetNumbers(s, finite.data(), layout, recipe);
  } else {
    const CodeValues values = ValuesOf(s, s.learned ? q.table : s.table.data());
    const float low = values.value[0], high = values.value[1];
    if (s.bits == 1 && (low == -high || !ExactUnit(values.value, 2, MostOf(values.value, 2)))) {
      layout.zero = 1;  // half their difference to either side of their mean
      layout.factor = (high - low) / 2;
      recipe.beside = (low + high) / 2;
      if (recipe.beside != 0) layout.minima = true, made.exact_values = false;
    } else {
      layout.bits = std::max(layout.bits, 2);
      made.exact_values = SetTable(values.value, size_t(s.codes), layout);
    }
  }
  if (!recipe.numbers.empty() && s.dim == 1) recipe.meaning = std::make_shared<const CodeMeaning>(q);
  layout.min_factor = 1;
  made.one_scale = HasOneScale(q) && !layout.minima && recipe.numbers.empty();
  const PanelScale stored = recipe.numbers.empty() && whole_zeros ? StoredScale(s) : PanelScale::kF32;
  made.exact_scales = exact || made.one_scale || stored != PanelScale::kF32;
  if (!made.one_scale && made.exact_values && made.exact_scales) layout.scale = stored;
  return made;
}

}  // namespace edgequant
