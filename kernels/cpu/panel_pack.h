// From blocks of a described format to panels.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/panel.h"

namespace edgequant {

// Packs 16 rows: row r's blocks begin at rows[r], or rows[r] is null for a missing row; `out` has
// layout.PanelBytes(cols) bytes. The description is read at run time, so that formats made by a user are packed as
// well.
void PackPanel(const Block& block, const PanelLayout& layout, const uint8_t* const rows[kPanelRows], size_t cols,
               uint8_t* out);

}  // namespace edgequant
