// Run-time formats in the layout that matrix products read.
#pragma once
#include "op/repack.h"
#include "op/scheme.h"

namespace edgequant {

struct SchemePanel {
  Panel panel;
  bool exact = false;  // the panel holds the decoded weights; else scales, zeros or tables are rounded to f16 and int8
};

// True if there is a panel: codes of up to 6 or 8 bits that are whole numbers, or of up to 4 with a table, in groups that
// 16 divides.
bool CanRepack(const Scheme& s);

SchemePanel Repack(const SchemeView& q);

}  // namespace edgequant
