// From blocks of a described format to panels.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/panel.h"
#include "kernels/cpu/pack_plan.h"

namespace edgequant {

// Packs 16 rows: row r's blocks begin at rows[r], or rows[r] is null for a missing row; `out`, aligned to 64, has
// layout.PanelBytes(cols) bytes.
void PackPanel(const PackRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out);

// The same from codes by themselves (of 8 bits: signed numbers, once `minus` is subtracted), and scales and minima
// (where the layout has them), of the layout's type, of each of the panel's groups, rows group_stride numbers apart.
// Rows from `count` on are missing.
struct PanelCodes {
  const uint8_t* codes;
  size_t code_stride;      // bytes from row to row; of words side by side, from word to word
  size_t row_bytes;
  const PackPlan* plan;    // PlanOfCodes, or BytePlan
  bool side_by_side;       // 32-bit words: those of the rows of the matrix follow one another
  uint8_t minus;
  const void *scales, *minima;
  size_t group_stride, count;
};
void PackPanelCodes(const PanelCodes& from, const PanelLayout& layout, size_t cols, uint8_t* out);

}  // namespace edgequant
