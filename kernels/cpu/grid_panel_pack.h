// From blocks of a grid format to its compact panel or its panel of trits.
#pragma once
#include "format/grid_panel.h"
#include "kernels/cpu/pack_plan.h"

namespace edgequant {

// What is known before the first row is seen: how bits of a chunk, which is a block, move to lines of the panel and to
// words of scales.
struct GridRecipe {
  GridRecipe(const Block& block, const PanelLayout& layout);

  PanelLayout layout;
  int block_bytes;
  PackPlan codes, scales;
  bool odd_signs;      // the sign of the last of 8 weights makes the number of minuses even
  int number_byte;     // of the f16 scale in the block; -1: it is the last word of `scales`
  int scale_words;     // lines of codes of scales in a header, of a block

  // Trits: `codes` makes lines of codes, of their upper bits if there are any, of 8 signs per code, the order of codes
  // being 0, 2, 1, 3, and of codes of scales that lie in the block. Where rows have taken the place of codes,
  // `units` makes the panel's lines.
  PackRows rows;
  PackPlan units{0};
  bool wide_codes = false;

 private:
  void SetRows(const Block& b);
  void SetTrits(const Block& b);
};

// Packs 16 rows of `cols` weights: row r's blocks begin at rows[r], or rows[r] is null for a missing row; `out`,
// aligned to 64, has layout.PanelBytes(cols) bytes.
void PackGridPanel(const GridRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out);

}  // namespace edgequant
