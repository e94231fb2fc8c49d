#include "op/scheme.h"

#include <string.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/threads.h"
#include "format/cell.h"
#include "kernels/cpu/bits.h"
#include "kernels/cpu/scheme_decode.h"
#include "op/planes.h"

namespace edgequant {
namespace {

constexpr Part kAll[kParts] = {Part::kSuper, Part::kSuperShift, Part::kScale, Part::kShift, Part::kEntries, Part::kCode};

size_t PieceBytes(const Plane& p, size_t elements) {
  return p.trits ? BytesOfTrits(elements) : BytesOfBits(elements, p.bits);
}

size_t BlocksOf(const Scheme& s, size_t cols) { return cols / size_t(s.block); }

// Numbers `step` bytes apart in runs of `run` that lie side by side.
void ReadNumberRuns(Cell cell, const uint8_t* from, size_t step, size_t runs, size_t run, float* out) {
  const auto read = [&](auto kind) {  // a loop for each kind of number
    constexpr Cell kCell = decltype(kind)::value;
    for (size_t b = 0; b < runs; ++b, from += step)
      for (size_t k = 0; k < run; ++k) *out++ = ReadCell(kCell, from + k * size_t(CellBits(kCell)) / 8);
  };
  switch (cell) {
    case Cell::kF32: return read(std::integral_constant<Cell, Cell::kF32>());
    case Cell::kF16: return read(std::integral_constant<Cell, Cell::kF16>());
    case Cell::kBF16: return read(std::integral_constant<Cell, Cell::kBF16>());
    case Cell::kE8M0: return read(std::integral_constant<Cell, Cell::kE8M0>());
    case Cell::kE4M3: return read(std::integral_constant<Cell, Cell::kE4M3>());
    case Cell::kInteger: return read(std::integral_constant<Cell, Cell::kInteger>());
  }
}

// Integers of a row of an interleaved part.
void ReadPieces(const Plane& p, const uint8_t* from, size_t step, size_t blocks, size_t n, uint8_t* out) {
  if (!p.trits) return UnpackBlocks(from, step, blocks, n, p.bits, p.high_first, p.offset, out);
  for (size_t b = 0; b < blocks; ++b, from += step, out += n) UnpackTrits(from, n, out);
}

// Integers or numbers of a row of a part, as floats.
void ReadPart(const SchemeView& q, Part part, size_t row, float* out) {
  const Scheme& s = *q.scheme;
  const Plane& p = PlaneOf(s, part);
  const Grid2 grid = GridOf(s, part, q.rows, q.cols);
  const uint8_t* from = q.arrays[part];
  size_t step = 0, n = 0;
  const size_t blocks = s.interleaved ? BlocksOf(s, q.cols) : 0;
  if (s.interleaved) {
    const BlockLayout layout = LayoutOf(s);
    step = layout.bytes;
    n = layout.count[int(part)];
    from = q.arrays[Part::kCode] + row * blocks * step + layout.begin[int(part)];
  }
  if (p.cell != Cell::kInteger) {
    if (s.interleaved) ReadNumberRuns(p.cell, from, step, blocks, n, out);
    else ReadNumbers(p, from, grid.rows, grid.cols, row, out);
    return;
  }
  std::vector<uint8_t> integers(grid.cols);
  if (s.interleaved) ReadPieces(p, from, step, blocks, n, integers.data());
  else UnpackRows(p, from, grid.rows, grid.cols, row, 1, integers.data(), grid.cols);
  for (size_t c = 0; c < grid.cols; ++c) out[c] = float(integers[c]);
}

}  // namespace

const Plane& PlaneOf(const Scheme& s, Part part) {
  switch (part) {
    case Part::kSuper: return s.super;
    case Part::kSuperShift: return s.super_shift;
    case Part::kScale: return s.scale;
    case Part::kShift: return s.shift;
    case Part::kEntries: return s.entries;
    case Part::kCode: break;
  }
  return s.code;
}

Grid2 GridOf(const Scheme& s, Part part, size_t rows, size_t cols) {
  const size_t scale_rows = s.ScaleRows(rows), groups = s.GroupsOf(cols);
  switch (part) {
    case Part::kScale:
    case Part::kShift: return {scale_rows, groups};
    case Part::kEntries: return {scale_rows, groups * size_t(s.codes)};
    case Part::kSuper:
    case Part::kSuperShift:
      // Next to integer scales without minima there is one number, which is added to all of them.
      if (s.super_group == 0 || (part == Part::kSuperShift && s.zeros != Zero::kMinimum)) return {1, 1};
      if (PlaneOf(s, part).flat) return {1, (scale_rows * groups + size_t(s.super_group) - 1) / size_t(s.super_group)};
      return {scale_rows, s.SupersOf(cols)};
    case Part::kCode: break;
  }
  return {rows, s.CodeCols(cols)};
}

PlaneShape ArrayOf(const Scheme& s, Part part, size_t rows, size_t cols) {
  Plane p = PlaneOf(s, part);
  if (s.interleaved && part == Part::kCode) {
    p = Plane();
    p.bits = 8;
    return ShapeOf(p, rows, BlocksOf(s, cols) * LayoutOf(s).bytes);
  }
  const Grid2 grid = GridOf(s, part, rows, cols);
  if (p.cell != Cell::kInteger) {
    PlaneShape shape{};
    shape.outer = p.cols_first ? grid.cols : grid.rows;
    shape.inner = p.cols_first ? grid.rows : grid.cols;
    return shape;
  }
  return ShapeOf(p, grid.rows, grid.cols);
}

BlockLayout LayoutOf(const Scheme& s) {
  BlockLayout layout;
  const size_t n = size_t(s.block), groups = n / size_t(s.group);
  for (Part part : kAll) {
    const Plane& p = PlaneOf(s, part);
    if (!p.present()) continue;
    size_t count = groups;
    if (part == Part::kSuper || part == Part::kSuperShift) count = groups / size_t(s.super_group);
    if (part == Part::kEntries) count = groups * size_t(s.codes);
    if (part == Part::kCode) count = n / size_t(s.dim);
    layout.begin[int(part)] = layout.bytes;
    layout.count[int(part)] = count;
    layout.bytes += PieceBytes(p, count);
  }
  return layout;
}

void CheckScheme(const Scheme& s) {
  const auto fail = [&](const auto&... parts) { Fail("format '", s.name, "': ", parts...); };
  if (s.bits < 1 || s.bits > 8) fail("codes have 1 to 8 bits, not ", s.bits);
  if (s.codes < 2 || s.codes > 1 << s.bits) fail(s.codes, " codes do not fit ", s.bits, " bits");
  if (s.dim != 1 && s.dim != 2 && s.dim != 4 && s.dim != 8) fail("a code stands for 1, 2, 4 or 8 weights, not ", s.dim);
  if ((s.dim > 1) != (s.values == Values::kCodebook)) fail("codes of several weights need a codebook, others have none");
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
  if (s.values == Values::kGroupTable && s.codes != 1 << s.bits && !s.code.trits) fail("tables of groups have an entry for each code");
  if (s.values == Values::kMinifloat && (s.exponent_bits < 1 || s.exponent_bits > s.bits - 1))
    fail("a small float of ", s.bits, " bits cannot have ", s.exponent_bits, " bits of exponent");
  if (s.values == Values::kMinifloat && (std::abs(s.exponent_bias) > 100 || !(s.highest > 0) || !std::isfinite(s.highest)))
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
  for (Part part : kAll) {
    const Plane& p = PlaneOf(s, part);
    if (!p.present()) continue;
    if (p.trits && part != Part::kCode) fail("only codes are base-3 digits");
    if (p.cell == Cell::kInteger && p.bits > 8) fail("integers have 1 to 8 bits, not ", p.bits);
    if (p.high_first && p.slots == 0 && p.bits != 1 && p.bits != 2 && p.bits != 4 && p.bits != 8)
      fail("elements of ", p.bits, " bits do not begin in the highest bits of a byte");
    if (p.word != 8 && p.word != 16 && p.word != 32) fail("words have 8, 16 or 32 bits, not ", p.word);
    if (p.slots * (p.trits ? 0 : p.bits) > p.word) fail(p.slots, " elements of ", p.bits, " bits do not fit a word of ", p.word);
    if (!p.order.empty()) {
      std::vector<int> sorted = p.order;
      std::sort(sorted.begin(), sorted.end());
      for (size_t k = 0; k < sorted.size(); ++k)
        if (sorted[k] != int(k) || sorted.size() != size_t(p.slots)) fail("the order must name each place of a word once");
    }
    if (p.trits && (p.down || p.cols_first || p.lanes != 1 || p.word != 8)) fail("base-3 digits run along the rows, in bytes");
    if (p.lanes < 0 || p.lane_unit < 1 || p.slots < 0) fail("lanes and slots cannot be negative");
  }
  if (s.code.trits ? s.codes != 3 : s.code.bits != s.bits) fail("the plane of codes does not have their width");
  if (s.super.present() && !s.scale.present() && (s.super_group || s.group || s.group_rows))
    fail("a second level without a first is one number for the tensor");
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
  for (Part part : kAll) {  // words that hold a part of the rows
    const Plane& p = PlaneOf(s, part);
    if (!p.present() || !p.down || p.cell != Cell::kInteger || s.interleaved) continue;
    const Grid2 grid = GridOf(s, part, rows, cols);
    const size_t unit_rows = p.slots ? size_t(p.slots) : size_t(32 / p.bits);
    if (p.slots && p.lanes == 1 && grid.rows % unit_rows != 0)
      Fail("format '", s.name, "': ", rows, " rows are not a multiple of the ", unit_rows, " that share a word");
  }
}

void ReadCodes(const SchemeView& q, size_t first, size_t count, uint8_t* codes, size_t stride) {
  const Scheme& s = *q.scheme;
  if (s.interleaved) {
    const BlockLayout layout = LayoutOf(s);
    const size_t blocks = BlocksOf(s, q.cols), row_bytes = blocks * layout.bytes;
    const uint8_t* const from = q.arrays[Part::kCode] + layout.begin[int(Part::kCode)];
    for (size_t r = 0; r < count; ++r)
      ReadPieces(s.code, from + (first + r) * row_bytes, layout.bytes, blocks, layout.count[int(Part::kCode)], codes + r * stride);
    return;
  }
  const Grid2 grid = GridOf(s, Part::kCode, q.rows, q.cols);
  UnpackRows(s.code, q.arrays[Part::kCode], grid.rows, grid.cols, first, count, codes, stride);
}

void ReadScales(const SchemeView& q, size_t row, float* scale, float* shift, float* entries) {
  const Scheme& s = *q.scheme;
  const size_t scale_row = row / s.GroupRows(q.rows), groups = s.GroupsOf(q.cols);
  if (s.entries.present()) ReadPart(q, Part::kEntries, scale_row, entries);
  if (s.scale.present()) ReadPart(q, Part::kScale, scale_row, scale);
  else std::fill_n(scale, groups, 1.0f);
  if (s.scale.present() && s.scale.cell == Cell::kInteger)
    for (size_t g = 0; g < groups; ++g)
      scale[g] = s.sub_table.empty() ? scale[g] - float(s.sub_zero) : s.sub_table[size_t(scale[g]) % s.sub_table.size()];
  if (s.zeros != Zero::kNone) ReadPart(q, Part::kShift, scale_row, shift);
  else std::fill_n(shift, groups, 0.0f);
  if (!s.super.present()) return;
  const Grid2 grid = GridOf(s, Part::kSuper, q.rows, q.cols);
  std::vector<float> super(grid.cols);
  const size_t super_row = grid.rows == 1 ? 0 : scale_row, per = size_t(s.super_group);
  const size_t first = s.super.flat ? scale_row * groups : 0;
  std::vector<uint32_t> index(groups);
  if (per)
    for (size_t g = 0, at = first / per, left = per - first % per; g < groups; ++g) {
      index[g] = uint32_t(at);
      if (--left == 0) left = per, ++at;
    }
  ReadPart(q, Part::kSuper, super_row, super.data());
  for (size_t g = 0; g < groups; ++g) scale[g] = s.divides ? scale[g] / super[index[g]] : scale[g] * super[index[g]];
  if (!s.super_shift.present()) return;
  if (s.zeros == Zero::kMinimum) {
    ReadPart(q, Part::kSuperShift, super_row, super.data());
    for (size_t g = 0; g < groups; ++g) shift[g] *= super[index[g]];
  } else {  // one number, added to all scales
    float offset = 0;
    ReadNumbers(s.super_shift, q.arrays[Part::kSuperShift], 1, 1, 0, &offset);
    for (size_t g = 0; g < groups; ++g) scale[g] += offset;
  }
}

void WriteIntegers(const Scheme& s, Part part, const uint8_t* values, size_t stride, size_t rows, size_t cols, size_t first,
                   size_t count, uint8_t* array) {
  const Plane& p = PlaneOf(s, part);
  if (!s.interleaved) {
    const Grid2 grid = GridOf(s, part, rows, cols);
    return PackRows(p, values, stride, grid.rows, grid.cols, first, count, array);
  }
  const BlockLayout layout = LayoutOf(s);
  const size_t n = layout.count[int(part)], blocks = BlocksOf(s, cols);
  for (size_t r = 0; r < count; ++r)
    for (size_t b = 0; b < blocks; ++b) {
      uint8_t* const out = array + ((first + r) * blocks + b) * layout.bytes + layout.begin[int(part)];
      const uint8_t* const from = values + r * stride + b * n;
      if (p.trits) PackTrits(from, n, out);
      else PackBits(from, n, p.bits, p.high_first, p.offset, out);
    }
}

void WriteFloats(const Scheme& s, Part part, const float* values, size_t rows, size_t cols, size_t row, uint8_t* array) {
  const Plane& p = PlaneOf(s, part);
  if (!s.interleaved) {
    const Grid2 grid = GridOf(s, part, rows, cols);
    return WriteNumbers(p, values, grid.rows, grid.cols, row, array);
  }
  const BlockLayout layout = LayoutOf(s);
  const size_t n = layout.count[int(part)], blocks = BlocksOf(s, cols);
  for (size_t b = 0; b < blocks; ++b)
    for (size_t k = 0; k < n; ++k)
      WriteCell(p.cell, values[b * n + k],
                array + (row * blocks + b) * layout.bytes + layout.begin[int(part)] + k * size_t(p.bits) / 8);
}

void DequantizeScheme(const SchemeView& q, size_t first, size_t count, float* out) {
  const Scheme& s = *q.scheme;
  const size_t groups = s.GroupsOf(q.cols), code_cols = s.CodeCols(q.cols);
  const bool vectors = s.values == Values::kCodebook || s.values == Values::kGroupTable;
  std::vector<float> padded;  // codes of a foreign file may lie past the table
  const float* table = s.learned ? q.table : s.table.data();
  if (s.values == Values::kCodebook) {
    padded.assign(table, table + size_t(s.codes) * size_t(s.dim));
    padded.resize((size_t{1} << s.bits) * size_t(s.dim));
    table = padded.data();
  }
  const CodeValues values = vectors ? CodeValues() : ValuesOf(s, table);
  const bool one_by_one = s.interleaved || RowsAreApart(s.code, code_cols);  // a row of codes stays in the first cache
  const size_t grain = std::max<size_t>(8, (size_t{1} << 15) / q.cols / 8 * 8);
  ParallelFor(count, grain, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes((one_by_one ? 1 : end - begin) * code_cols);
    std::vector<float> scale(groups), shift(groups), entries(s.entries.present() ? groups * size_t(s.codes) : 0);
    if (!one_by_one) ReadCodes(q, first + begin, end - begin, codes.data(), code_cols);
    for (size_t r = begin; r < end; ++r) {
      if (one_by_one) ReadCodes(q, first + r, 1, codes.data(), code_cols);
      ReadScales(q, first + r, scale.data(), shift.data(), entries.data());
      DecodeRow row;
      row.values = vectors ? nullptr : &values;
      row.table = entries.empty() ? table : entries.data();
      row.dim = s.dim;
      row.codes = s.codes;
      row.zeros = s.zeros;
      row.code = codes.data() + (one_by_one ? 0 : r - begin) * code_cols;
      row.scale = scale.data();
      row.shift = shift.data();
      row.cols = q.cols;
      row.group = s.GroupCols(q.cols);
      DecodeCodes(row, out + r * q.cols);
    }
  });
}

}  // namespace edgequant
