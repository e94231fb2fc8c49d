// From blocks of a grid format to its compact panel.
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
  int scale_words;     // of a byte per two groups
};

// Packs 16 rows of `cols` weights: row r's blocks begin at rows[r], or rows[r] is null for a missing row; `out`, aligned
// to 64, has layout.PanelBytes(cols) bytes.
void PackGridPanel(const GridRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out);

}  // namespace edgequant
