#include "op/scheme.h"

#include <algorithm>

#include "format/cell.h"
#include "kernels/cpu/bits.h"
#include "kernels/cpu/scheme_decode.h"
#include "op/planes.h"

namespace edgequant {
namespace {

constexpr Part kAll[kParts] = {Part::kSuper, Part::kSuperShift, Part::kScale,
                               Part::kShift, Part::kEntries,    Part::kCode};

size_t PieceBytes(const Plane& p, size_t elements) {
  return p.trits ? BytesOfTrits(elements) : BytesOfBits(elements, p.bits);
}

size_t BlocksOf(const Scheme& s, size_t cols) { return cols / size_t(s.block); }

// Integers of a row of an interleaved part.
void ReadPieces(const Plane& p, const uint8_t* from, size_t step, size_t blocks, size_t n, uint8_t* out) {
  if (!p.trits) return UnpackBlocks(from, step, blocks, n, p.bits, p.high_first, p.offset, out);
  for (size_t b = 0; b < blocks; ++b, from += step, out += n) UnpackTrits(from, n, out);
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
    shape.inner = (p.cols_first ? grid.rows : grid.cols) * size_t(p.every);
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
    if (part == Part::kCode) count = n / size_t(s.dim) * size_t(s.digits());
    layout.begin[int(part)] = layout.bytes;
    layout.count[int(part)] = count;
    layout.bytes += PieceBytes(p, count);
  }
  return layout;
}

void SplitCodes(const Scheme& s, const uint16_t* codes, size_t n, uint8_t* out) {
  if (s.digits() == 1) {
    for (size_t i = 0; i < n; ++i) out[i] = uint8_t(codes[i]);
    return;
  }
  const int half = s.bits / 2;
  for (size_t i = 0; i < n; ++i) {
    out[2 * i] = uint8_t(codes[i] & ((1 << half) - 1));
    out[2 * i + 1] = uint8_t(codes[i] >> half);
  }
}

void JoinCodes(const Scheme& s, const uint8_t* digits, size_t n, uint16_t* out) {
  const int half = s.bits / 2;
  for (size_t i = 0; i < n; ++i)
    out[i] = s.digits() == 1 ? digits[i] : uint16_t(digits[2 * i] | digits[2 * i + 1] << half);
}

void ReadCodes(const SchemeView& q, size_t first, size_t count, uint8_t* codes, size_t stride) {
  const Scheme& s = *q.scheme;
  if (s.interleaved) {
    const BlockLayout layout = LayoutOf(s);
    const size_t blocks = BlocksOf(s, q.cols), row_bytes = blocks * layout.bytes;
    const uint8_t* const from = q.arrays[Part::kCode] + layout.begin[int(Part::kCode)];
    const size_t n = layout.count[int(Part::kCode)];
    for (size_t r = 0; r < count; ++r)
      ReadPieces(s.code, from + (first + r) * row_bytes, layout.bytes, blocks, n, codes + r * stride);
    return;
  }
  const Grid2 grid = GridOf(s, Part::kCode, q.rows, q.cols);
  UnpackRows(s.code, q.arrays[Part::kCode], grid.rows, grid.cols, first, count, codes, stride);
}

struct ScaleReader::Patterns { CodePattern scale, shift; };

ScaleReader::~ScaleReader() = default;

ScaleReader::ScaleReader(const SchemeView& q) : q_(q), groups_(q.scheme->GroupsOf(q.cols)) {
  const Scheme& s = *q.scheme;
  if (!s.interleaved) return;
  layout_ = LayoutOf(s);
  end_ = q.arrays[Part::kCode] + q.rows * BlocksOf(s, q.cols) * layout_.bytes;
  const auto plain = [](const Plane& p) { return p.cell == Cell::kInteger && !p.high_first && p.offset == 0; };
  const bool at_once =
      s.two_level() && plain(s.scale) && s.sub_table.empty() && !s.divides && layout_.count[int(Part::kSuper)] == 1 &&
      (s.zeros == Zero::kNone || (s.zeros == Zero::kMinimum && s.super_shift.present() && plain(s.shift)));
  if (at_once) at_once_ = std::make_unique<Patterns>(Patterns{PatternOf(s.scale), PatternOf(s.shift)});
}

// Integers of one part times the numbers of another, one for each block.
void ScaleReader::ReadScaled(Part part, Part super_part, float zero, size_t row, float* out) {
  const size_t blocks = BlocksOf(*q_.scheme, q_.cols);
  float* const super = super_.Get<float>(blocks);
  ReadPart(super_part, row, super);
  const uint8_t* const from = q_.arrays[Part::kCode] + row * blocks * layout_.bytes + layout_.begin[int(part)];
  ReadScaledIntegers(part == Part::kScale ? at_once_->scale : at_once_->shift, from, end_, layout_.bytes, blocks,
                     layout_.count[int(part)], zero, super, out);
}

// Integers of a row of a part whose rows are read in tiles.
void ScaleReader::TakeRow(Part part, size_t row, uint8_t* out) {
  Integers& of = tiles_[int(part)];
  const Plane& p = PlaneOf(*q_.scheme, part);
  const Grid2 grid = GridOf(*q_.scheme, part, q_.rows, q_.cols);
  if (!of.tile) of.tile.emplace(p, grid.rows, grid.cols, of.memory);
  if (row < of.first || row >= of.end) {
    of.first = row;
    of.end = std::min(grid.rows, row + of.tile->rows());
    of.tile->Read(q_.arrays[part], row, of.end - row);
  }
  of.tile->Take(row, out);
}

// Integers or numbers of a row of a part, as floats.
void ScaleReader::ReadPart(Part part, size_t row, float* out) {
  const Scheme& s = *q_.scheme;
  const Plane& p = PlaneOf(s, part);
  const Grid2 grid = GridOf(s, part, q_.rows, q_.cols);
  const uint8_t* from = q_.arrays[part];
  const size_t blocks = s.interleaved ? BlocksOf(s, q_.cols) : 0, n = layout_.count[int(part)];
  if (s.interleaved) from = q_.arrays[Part::kCode] + row * blocks * layout_.bytes + layout_.begin[int(part)];
  if (p.cell != Cell::kInteger) {
    if (s.interleaved) ReadCells(p.cell, from, layout_.bytes, blocks, n, out);
    else ReadNumbers(p, from, grid.rows, grid.cols, row, out);
    return;
  }
  uint8_t* const integers = integers_.Get<uint8_t>(grid.cols);
  if (s.interleaved) ReadPieces(p, from, layout_.bytes, blocks, n, integers);
  else if (PlaneTile::Fits(p)) TakeRow(part, row, integers);
  else UnpackRows(p, from, grid.rows, grid.cols, row, 1, integers, grid.cols);
  for (size_t c = 0; c < grid.cols; ++c) out[c] = float(integers[c]);
}

void ScaleReader::Read(size_t row, float* scale, float* shift, float* entries) {
  const Scheme& s = *q_.scheme;
  if (at_once_) {
    ReadScaled(Part::kScale, Part::kSuper, float(s.sub_zero), row, scale);
    if (s.zeros == Zero::kMinimum) return ReadScaled(Part::kShift, Part::kSuperShift, 0, row, shift);
    std::fill_n(shift, groups_, 0.0f);
    return;
  }
  const size_t scale_row = row / s.GroupRows(q_.rows), groups = groups_;
  if (s.entries.present() && entries) ReadPart(Part::kEntries, scale_row, entries);
  if (s.scale.present()) ReadPart(Part::kScale, scale_row, scale);
  else std::fill_n(scale, groups, 1.0f);
  if (s.scale.present() && s.scale.cell == Cell::kInteger) {
    if (s.sub_table.empty())
      for (size_t g = 0; g < groups; ++g) scale[g] -= float(s.sub_zero);
    else
      for (size_t g = 0; g < groups; ++g) scale[g] = s.sub_table[size_t(scale[g]) % s.sub_table.size()];
  }
  if (s.zeros != Zero::kNone) ReadPart(Part::kShift, scale_row, shift);
  else std::fill_n(shift, groups, 0.0f);
  if (!s.super.present()) return;
  const Grid2 grid = GridOf(s, Part::kSuper, q_.rows, q_.cols);
  float* const super = super_.Get<float>(grid.cols);
  const size_t super_row = grid.rows == 1 ? 0 : scale_row, per = s.super_group ? size_t(s.super_group) : groups;
  const size_t first = s.super_group && s.super.flat ? scale_row * groups : 0;
  const auto with_super = [&](const auto& change) {  // runs of groups with one number
    for (size_t g = 0, at = first / per, left = per - first % per; g < groups; left = per, ++at) {
      const size_t end = std::min(groups, g + left);
      for (const float number = super[at]; g < end; ++g) change(g, number);
    }
  };
  ReadPart(Part::kSuper, super_row, super);
  if (s.divides) with_super([&](size_t g, float number) { scale[g] /= number; });
  else with_super([&](size_t g, float number) { scale[g] *= number; });
  if (!s.super_shift.present()) return;
  if (s.zeros == Zero::kMinimum) {
    ReadPart(Part::kSuperShift, super_row, super);
    with_super([&](size_t g, float number) { shift[g] *= number; });
  } else {  // one number, added to all scales
    float offset = 0;
    ReadNumbers(s.super_shift, q_.arrays[Part::kSuperShift], 1, 1, 0, &offset);
    for (size_t g = 0; g < groups; ++g) scale[g] += offset;
  }
}

void WriteIntegers(const Scheme& s, Part part, const uint8_t* values, size_t stride, size_t rows, size_t cols,
                   size_t first, size_t count, uint8_t* array) {
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

void WriteFloats(const Scheme& s, Part part, const float* values, size_t rows, size_t cols, size_t first, size_t count,
                 uint8_t* array) {
  const Plane& p = PlaneOf(s, part);
  if (!s.interleaved) {
    const Grid2 grid = GridOf(s, part, rows, cols);
    return WriteNumbers(p, values, grid.rows, grid.cols, first, count, array);
  }
  const BlockLayout layout = LayoutOf(s);
  const size_t n = layout.count[int(part)], blocks = BlocksOf(s, cols);
  for (size_t b = 0; b < count * blocks; ++b)
    for (size_t k = 0; k < n; ++k)
      WriteCell(p.cell, values[b * n + k],
                array + (first * blocks + b) * layout.bytes + layout.begin[int(part)] + k * size_t(p.bits) / 8);
}

}  // namespace edgequant
