#include "op/scheme_panel.h"

#include <algorithm>
#include <cmath>

#include "core/half.h"
#include "core/threads.h"
#include "kernels/cpu/panel_pack.h"
#include "kernels/cpu/scheme_values.h"

namespace edgequant {
namespace {

// Weights of a panel's group: the largest power of two that divides the format's.
int PanelGroup(const Scheme& s) {
  if (s.group == 0) return 256;
  return std::min(256, s.group & -s.group);
}

// The table as int8 times a factor; true if nothing was rounded.
bool SetTable(const float* values, int codes, PanelLayout& layout) {
  const auto rounded = [&](float by) {
    double error = 0;
    for (int k = 0; k < codes; ++k) {
      const float v = values[k] * by, whole = std::nearbyint(v);
      error += double(v - whole) * double(v - whole);
    }
    return error / (double(by) * double(by));
  };
  float most = 0;
  for (int k = 0; k < codes; ++k) most = std::max(most, std::abs(values[k]));
  float best = most > 0 ? 127 / most : 1;
  double least = rounded(best);
  for (float by = 1; by <= 64 && most * by <= 127 && least > 0; by *= 2)  // whole numbers, halves, quarters
    if (rounded(by) == 0) best = by, least = 0;
  for (float to = 64; to < 127 && least > 0; to += 0.0625f)
    if (rounded(to / most) < least) best = to / most, least = rounded(best);
  layout.table = true;
  layout.factor = 1 / best;
  for (int k = 0; k < codes; ++k) layout.values[k] = int8_t(std::nearbyint(values[k] * best));
  return least == 0;
}

// What a row of the panel is: codes as stored there, scales and minima of the panel's groups.
struct RowRecipe {
  float zero = 0;        // what the panel subtracts from the codes it is given
  int code_offset = 0;   // subtracted from codes that are stored as signed bytes
};

bool LayoutOf(const SchemeView& q, PanelLayout& layout, RowRecipe& recipe) {
  const Scheme& s = *q.scheme;
  layout.group = PanelGroup(s);
  layout.bits = s.bits == 7 ? 8 : s.bits;
  layout.scale = PanelScale::kF16;
  layout.groups_per_header = 2;
  layout.minima = s.zeros != Zero::kNone;
  const bool f16 = !s.super.present() && (!s.scale.present() || s.scale.cell == Cell::kF16);
  bool exact = f16 && (s.zeros == Zero::kNone || (s.zeros == Zero::kMinimum && s.shift.cell == Cell::kF16));
  if (s.values == Values::kAffine && (s.zeros != Zero::kNone || s.zero == std::floor(s.zero))) {
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
  } else {
    const CodeValues values = ValuesOf(s, s.learned ? q.table : s.table.data());
    layout.bits = std::max(layout.bits, 2);
    exact = SetTable(values.value, s.codes, layout) && exact;
  }
  layout.min_factor = 1;
  return exact;
}

}  // namespace

bool CanRepack(const Scheme& s) {
  if (s.dim > 1 || s.values == Values::kGroupTable || PanelGroup(s) < 16 || s.codes > 256) return false;
  return s.values == Values::kAffine ? s.zeros != Zero::kNone || s.zero == std::floor(s.zero) || s.bits <= 4 : s.bits <= 4;
}

SchemePanel Repack(const SchemeView& q) {
  const Scheme& s = *q.scheme;
  if (!CanRepack(s)) Fail("matmul has no panel for weights in ", s.name);
  SchemePanel result;
  RowRecipe recipe;
  PanelLayout layout;
  result.exact = LayoutOf(q, layout, recipe);
  const size_t groups = s.GroupsOf(q.cols), group = s.GroupCols(q.cols), code_cols = s.CodeCols(q.cols);
  const size_t panel_groups = layout.GroupsOf(q.cols), panel_group = size_t(layout.group);
  // Scales that are no f16 anyway are moved, all by one power of two, to where f16 has its full precision.
  float unit = 1;
  if (s.scaled() && (s.super.present() || s.scale.cell != Cell::kF16)) {
    std::vector<float> most(q.rows);
    ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
      ScaleReader scales(q);
      std::vector<float> scale(groups), shift(groups);
      for (size_t r = begin; r < end; ++r) {
        scales.Read(r, scale.data(), shift.data(), nullptr);
        for (size_t g = 0; g < groups; ++g) {
          most[r] = std::max(most[r], std::abs(scale[g]));
          if (s.zeros == Zero::kMinimum) most[r] = std::max(most[r], std::abs(shift[g]) / 64);
        }
      }
    });
    const float all = *std::max_element(most.begin(), most.end());
    int exponent = 0;
    if (all > 0 && std::isfinite(all)) std::frexp(all, &exponent);
    unit = std::ldexp(1.0f, std::max(-100, std::min(exponent, 100)) - 8);
  }
  layout.factor *= unit;
  layout.min_factor *= unit;
  result.panel = AllocatePanel(s.name, layout, q.rows, q.cols);
  if (s.transform.hadamard) result.panel.rotation = std::make_shared<const Hadamard>(s.transform, q.cols, s.name);
  uint8_t* const out = result.panel.data.get();
  const size_t panel_bytes = result.panel.panel_bytes();
  ParallelFor(result.panel.panels(), 1, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(kPanelRows * code_cols);
    std::vector<uint16_t> scales(kPanelRows * panel_groups), minima(kPanelRows * panel_groups);
    std::vector<float> scale(groups), shift(groups);
    ScaleReader reader(q);
    for (size_t p = begin; p < end; ++p) {
      const size_t first = p * kPanelRows, count = std::min<size_t>(kPanelRows, q.rows - first);
      ReadCodes(q, first, count, codes.data(), code_cols);
      if (recipe.code_offset != 0)
        for (uint8_t& c : codes) c = uint8_t(c - recipe.code_offset);
      std::fill(scales.begin(), scales.end(), uint16_t{0});
      std::fill(minima.begin(), minima.end(), uint16_t{0});
      for (size_t r = 0; r < count; ++r) {
        reader.Read(first + r, scale.data(), shift.data(), nullptr);
        for (size_t k = 0; k < panel_groups && k * panel_group < q.cols; ++k) {
          const size_t g = k * panel_group / group;
          float minimum = shift[g];  // of the weight, beside (code - zero) * scale
          if (s.zeros == Zero::kInteger || s.zeros == Zero::kFloat) minimum = (recipe.zero - shift[g]) * scale[g];
          else if (s.zeros == Zero::kMinimum && s.values == Values::kAffine) minimum += (recipe.zero - s.zero) * scale[g];
          scales[r * panel_groups + k] = F16FromF32(scale[g] / unit);
          minima[r * panel_groups + k] = F16FromF32(minimum / unit);
        }
      }
      PackPanelCodes({codes.data(), code_cols, scales.data(), minima.data(), panel_groups, count}, layout, q.cols,
                     out + p * panel_bytes);
    }
  });
  return result;
}

}  // namespace edgequant
