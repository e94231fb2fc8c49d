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

// True if there is a panel: groups of four and more. What has more than 16 values becomes signed bytes there:
// codebooks, large tables, tables of groups.
bool CanRepack(const Scheme& s);
// False if codes of small floats stand for NaN or infinities, which a panel cannot hold.
bool HoldsNumbersOnly(const SchemeView& q);

// `exact`: scales that are neither f16 nor bf16 become f32. An Error if there is no panel, or the group of a column is
// none of q's.
SchemePanel Repack(const SchemeView& q, const SchemeColumns& columns = {}, bool exact = false);

// A copy of the codes, at the format's own rate (whole bytes for codebooks and for groups that 16 does not divide), and
// of all scales, minima and tables of groups in f32. Products are those of the decoded weights in f32; about a thousand
// weights of four rows are decoded at a time.
Panel KeepRows(const SchemeView& q);
// What compute="exact" multiplies: an exact panel, or such rows.
Panel RepackExactly(const SchemeView& q);

}  // namespace edgequant
