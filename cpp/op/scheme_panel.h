// Run-time formats in the layout that matrix products read.
#pragma once
#include "op/repack.h"
#include "op/scheme.h"

namespace edgequant {

struct SchemePanel {
  Panel panel;
  bool exact = false;  // the panel holds the decoded weights; else scales, zeros or tables are rounded to f16 and int8
};

// What belongs to the columns of a matrix, if not null.
struct SchemeColumns {
  const int32_t* groups = nullptr;  // the group of each, instead of its number / s.group; any number in each group
  const float* scale = nullptr;     // a factor of each
};

// True if there is a panel: groups that 16 divides, and codes that are whole numbers or have a table. What has more
// than 16 values becomes signed bytes there: codebooks, large tables, tables of groups.
bool CanRepack(const Scheme& s);
// False if codes of small floats stand for NaN or infinities, which a panel cannot hold.
bool HoldsNumbersOnly(const SchemeView& q);

// An Error if there is no panel, or the group of a column is none of q's.
SchemePanel Repack(const SchemeView& q, const SchemeColumns& columns = {});

}  // namespace edgequant
