// Descriptions that contradict themselves, or do not fit a matrix.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "op/hadamard.h"
#include "op/scheme.h"

namespace edgequant {

void CheckScheme(const Scheme& s) {
  const auto fail = [&](const auto&... parts) { Fail("format '", s.name, "': ", parts...); };
  if (s.bits < 1 || s.bits > (s.values == Values::kCodebook ? 16 : 8))
    fail("codes have 1 to 8 bits, not ", s.bits, " (those of a codebook 1 to 16)");
  if (s.bits > 8 && (s.bits % 2 != 0 || !s.interleaved))
    fail("codes of more than 8 bits have an even number, and lie in blocks");
  if (s.codes < 2 || s.codes > 1 << s.bits) fail(s.codes, " codes do not fit ", s.bits, " bits");
  if (s.dim != 1 && s.dim != 2 && s.dim != 4 && s.dim != 8) fail("a code stands for 1, 2, 4 or 8 weights, not ", s.dim);
  if ((s.dim > 1) != (s.values == Values::kCodebook))
    fail("codes of several weights need a codebook, others have none");
  if (s.group < 0 || s.group_rows < 0 || s.super_group < 0) fail("groups cannot be negative");
  if (s.group > 0 && s.group % s.dim != 0) fail("a group of ", s.group, " is not a multiple of vectors of ", s.dim);
  if (!s.code.present() || s.code.cell != Cell::kInteger) fail("there is no plane of codes");
  const bool tables = s.values == Values::kTable || s.values == Values::kCodebook;
  if (tables && !s.learned && s.table.size() != size_t(s.codes) * size_t(s.dim))
    fail("the table has ", s.table.size(), " values, but ", s.codes, " codes of ", s.dim, " weights");
  for (float v : s.table)
    if (!std::isfinite(v)) fail("the table holds ", v);
  if (s.values == Values::kGroupTable && (!s.entries.present() || s.entries.cell == Cell::kInteger))
    fail("tables of groups need a plane of numbers");
  if (s.values == Values::kGroupTable && s.codes != 1 << s.bits && !s.code.trits)
    fail("tables of groups have an entry for each code");
  if (s.values == Values::kMinifloat && (s.exponent_bits < 1 || s.exponent_bits > s.bits - 1))
    fail("a small float of ", s.bits, " bits cannot have ", s.exponent_bits, " bits of exponent");
  if (s.values == Values::kMinifloat &&
      (std::abs(s.exponent_bias) > 100 || !(s.highest > 0) || !std::isfinite(s.highest)))
    fail("a small float cannot have a bias of ", s.exponent_bias, " and reach ", s.highest);
  if (s.values == Values::kGroupTable || s.values == Values::kCodebook) {
    if (s.group_rows != 1 || s.pad_cols || s.super.present() || s.zeros != Zero::kNone)
      fail("codebooks and tables of groups have no second level, zeros, padding or groups of several rows");
    if (s.values == Values::kGroupTable && s.scale.present()) fail("tables of groups need no scale");
  } else if (s.entries.present()) {
    fail("only tables of groups have a plane of entries");
  }
  if (!std::isfinite(s.zero)) fail("the zero is ", s.zero);
  if (s.zeros != Zero::kNone && !s.shift.present()) fail("zeros and minima need a plane");
  if ((s.zeros == Zero::kInteger || s.zeros == Zero::kFloat) && s.values != Values::kAffine)
    fail("only codes that are whole numbers have zero points");
  if (s.zeros != Zero::kNone && s.values == Values::kCodebook) fail("a codebook has no zeros or minima");
  if (s.scale.present() && s.scale.cell == Cell::kInteger && !s.super.present())
    fail("integer scales need a second level");
  if (s.zeros == Zero::kMinimum && s.shift.cell == Cell::kInteger && !s.super_shift.present())
    fail("integer minima need a second level");
  for (const Plane* p : {&s.super, &s.super_shift})
    if (p->present() && p->cell == Cell::kInteger) fail("a second level consists of numbers, not of integers");
  if (s.two_level() && s.group_rows != 1) fail("scales over a second level belong to groups of one row");
  if (s.super_shift.present() && (!s.two_level() || (s.interleaved && s.zeros != Zero::kMinimum)))
    fail("there are numbers for minima of a second level that does not exist");
  for (int k = 0; k < kParts; ++k) {
    const Part part = Part(k);
    const Plane& p = PlaneOf(s, part);
    if (!p.present()) continue;
    if (p.trits && part != Part::kCode) fail("only codes are base-3 digits");
    if (p.cell == Cell::kInteger && p.bits > 8) fail("integers have 1 to 8 bits, not ", p.bits);
    if (p.high_first && p.slots == 0 && p.bits != 1 && p.bits != 2 && p.bits != 4 && p.bits != 8)
      fail("elements of ", p.bits, " bits do not begin in the highest bits of a byte");
    if (p.word != 8 && p.word != 16 && p.word != 32) fail("words have 8, 16 or 32 bits, not ", p.word);
    if (p.slots * (p.trits ? 0 : p.bits) > p.word)
      fail(p.slots, " elements of ", p.bits, " bits do not fit a word of ", p.word);
    if (!p.order.empty()) {
      std::vector<int> sorted = p.order;
      std::sort(sorted.begin(), sorted.end());
      for (size_t place = 0; place < sorted.size(); ++place)
        if (sorted[place] != int(place) || sorted.size() != size_t(p.slots))
          fail("the order must name each place of a word once");
    }
    if (p.trits && (p.down || p.cols_first || p.lanes != 1 || p.word != 8))
      fail("base-3 digits run along the rows, in bytes");
    if (p.chunks_first && (!p.down || !p.cols_first || p.slots == 0 || p.lanes == 0 || p.flat))
      fail("only words down the rows, stored column by column, have chunks of rows one after another");
    const bool second = part == Part::kShift && p.at == 1 && p.every == 2 && s.scale.every == 2 &&
                        s.scale.cell == p.cell && s.scale.cols_first == p.cols_first;
    const bool first = part == Part::kScale && p.at == 0 && p.every == 2 && s.shift.every == 2;
    const bool numbers = p.cell != Cell::kInteger && !s.interleaved && s.group_rows == 1;
    if ((p.every != 1 || p.at != 0) && !((first || second) && numbers))
      fail("only a scale and the shift of the same kind lie side by side");
    if (p.lanes < 0 || p.lane_unit < 1 || p.slots < 0) fail("lanes and slots cannot be negative");
  }
  if (s.code.trits ? s.codes != 3 : s.code.bits * s.digits() != s.bits)
    fail("the plane of codes does not have their width");
  if (s.super.present() && !s.scale.present() && (s.super_group || s.group || s.group_rows))
    fail("a second level without a first is one number for the tensor");
  const int mixed = s.transform.block;
  if (mixed < 0 || (mixed & (mixed - 1)) != 0 || (mixed > 0 && mixed < 16))
    fail("a transform mixes a power of two of columns from 16 up, not ", mixed);
  if (s.interleaved) {
    if (s.group <= 0 || s.block <= 0 || s.block % s.group != 0 || s.group_rows != 1)
      fail("a block of ", s.block, " is not a whole number of groups of ", s.group);
    if (s.two_level() && (s.super_group == 0 || s.block / s.group % s.super_group != 0))
      fail("a block does not hold whole numbers of the second level");
  }
}

void CheckFits(const Scheme& s, size_t rows, size_t cols) {
  if (rows == 0 || cols == 0) Fail("format '", s.name, "': there are no weights in ", rows, " x ", cols);
  const size_t unit = s.interleaved ? size_t(s.block) : size_t(s.dim);
  if (cols % unit != 0) Fail("format '", s.name, "': rows of ", cols, " weights are not a multiple of ", unit);
  if (s.code.flat && cols % s.GroupCols(cols) != 0)
    Fail("format '", s.name, "': rows of ", cols, " weights are not a multiple of its group of ", s.group);
  if (s.transform.hadamard) TransformBlock(s.transform, cols, s.name);
  for (int k = 0; k < kParts; ++k) {  // words that hold a part of the rows
    const Part part = Part(k);
    const Plane& p = PlaneOf(s, part);
    if (!p.present() || !p.down || p.cell != Cell::kInteger || s.interleaved) continue;
    const Grid2 grid = GridOf(s, part, rows, cols);
    const size_t unit_rows = size_t(p.slots) * size_t(p.lanes);
    if (unit_rows && grid.rows % unit_rows != 0)
      Fail("format '", s.name, "': ", rows, " rows are not a multiple of the ", unit_rows,
           p.lanes == 1 ? " that share a word" : " of a tile");
  }
}

}  // namespace edgequant
