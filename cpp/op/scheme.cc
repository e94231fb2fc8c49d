#include "op/scheme.h"

#include <string.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/threads.h"
#include "format/cell.h"
#include "kernels/cpu/bits.h"
#include "kernels/cpu/scheme_decode.h"
#include "op/hadamard.h"
#include "op/planes.h"

namespace edgequant {
namespace {

constexpr Part kAll[kParts] = {Part::kSuper, Part::kSuperShift, Part::kScale, Part::kShift, Part::kEntries, Part::kCode};

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
  if (s.transform.block < 0 || (s.transform.block & (s.transform.block - 1)) != 0 || (s.transform.block > 0 && s.transform.block < 16))
    fail("a transform mixes a power of two of columns from 16 up, not ", s.transform.block);
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
  for (Part part : kAll) {  // words that hold a part of the rows
    const Plane& p = PlaneOf(s, part);
    if (!p.present() || !p.down || p.cell != Cell::kInteger || s.interleaved) continue;
    const Grid2 grid = GridOf(s, part, rows, cols);
    const size_t unit_rows = p.slots ? size_t(p.slots) : size_t(32 / p.bits);
    if (p.slots && p.lanes == 1 && grid.rows % unit_rows != 0)
      Fail("format '", s.name, "': ", rows, " rows are not a multiple of the ", unit_rows, " that share a word");
  }
}

void SplitCodes(const Scheme& s, const uint16_t* codes, size_t n, uint8_t* out) {
  if (s.digits() == 1) {
    for (size_t i = 0; i < n; ++i) out[i] = uint8_t(codes[i]);
    return;
  }
  const int half = s.bits / 2;
  for (size_t i = 0; i < n; ++i) out[2 * i] = uint8_t(codes[i] & ((1 << half) - 1)), out[2 * i + 1] = uint8_t(codes[i] >> half);
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

struct ScaleReader::Patterns { CodePattern scale, shift; };

ScaleReader::~ScaleReader() = default;

ScaleReader::ScaleReader(const SchemeView& q) : q_(q), groups_(q.scheme->GroupsOf(q.cols)) {
  const Scheme& s = *q.scheme;
  if (!s.interleaved) return;
  layout_ = LayoutOf(s);
  end_ = q.arrays[Part::kCode] + q.rows * BlocksOf(s, q.cols) * layout_.bytes;
  const auto plain = [](const Plane& p) { return p.cell == Cell::kInteger && !p.high_first && p.offset == 0; };
  const bool at_once = s.two_level() && plain(s.scale) && s.sub_table.empty() && !s.divides && layout_.count[int(Part::kSuper)] == 1 &&
                       (s.zeros == Zero::kNone || (s.zeros == Zero::kMinimum && s.super_shift.present() && plain(s.shift)));
  if (at_once) at_once_ = std::make_unique<Patterns>(Patterns{PatternOf(s.scale), PatternOf(s.shift)});
}

// Integers of one part times the numbers of another, one for each block.
void ScaleReader::ReadScaled(Part part, Part super_part, float zero, size_t row, float* out) {
  const size_t blocks = BlocksOf(*q_.scheme, q_.cols);
  float* const super = super_.Get<float>(blocks);
  ReadPart(super_part, row, super);
  const uint8_t* const from = q_.arrays[Part::kCode] + row * blocks * layout_.bytes + layout_.begin[int(part)];
  ReadScaledIntegers(part == Part::kScale ? at_once_->scale : at_once_->shift, from, end_, layout_.bytes, blocks, layout_.count[int(part)], zero, super, out);
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

namespace {

// Codes of 16 weights and more that share a scale are decoded where they lie, if their bits are a stream.
bool CanDecodePacked(const Scheme& s, size_t cols) {
  return s.dim == 1 && cols % 16 == 0 && s.GroupCols(cols) % 16 == 0 && s.block % 16 == 0 &&
         (s.interleaved || RowsAreApart(s.code, s.CodeCols(cols)));
}

// True if value * scale has at most 24 bits: whole (or half) numbers times scales of few.
bool ProductsAreExact(const Scheme& s) {
  const auto bits_of = [](const Plane& p) {
    switch (p.cell) {
      case Cell::kInteger: return p.bits;
      case Cell::kF16: return 11;
      case Cell::kBF16: return 8;
      case Cell::kE4M3: return 4;
      case Cell::kE8M0: return 1;
      case Cell::kF32: break;
    }
    return 24;
  };
  if (s.values != Values::kAffine || s.divides || !s.sub_table.empty() || s.sub_zero != 0) return false;
  if (s.zero != 0 && (2 * s.zero != std::floor(2 * s.zero) || std::abs(s.zero) > float(1 << s.bits))) return false;
  return s.bits + 2 + (s.scale.present() ? bits_of(s.scale) : 0) + (s.super.present() ? bits_of(s.super) : 0) <= 24;
}

// Rows of one matrix, by one thread.
class RowDecoder {
 public:
  RowDecoder(const SchemeView& q, const CodeValues* values, const float* table, const CodePattern* pattern, const Hadamard* rotation)
      : rotation_(rotation), scales_(q), groups_(q.scheme->GroupsOf(q.cols)) {
    const Scheme& s = *q.scheme;
    row_.values = values;
    row_.table = table;
    row_.dim = s.dim;
    row_.codes = s.codes;
    row_.zeros = s.zeros;
    row_.scale = scale_.Get<float>(groups_);
    row_.shift = shift_.Get<float>(groups_);
    row_.cols = q.cols;
    row_.group = s.GroupCols(q.cols);
    row_.exact_products = ProductsAreExact(s);
    if (s.entries.present()) row_.table = entries_ = entry_memory_.Get<float>(groups_ * size_t(s.codes) + 16);
    row_.packed.pattern = pattern;
    if (!pattern) return;
    const PlaneShape shape = ArrayOf(s, Part::kCode, q.rows, q.cols);
    const size_t word = s.interleaved ? 8 : size_t(s.code.word);
    codes_ = q.arrays[Part::kCode];
    row_.packed.end = codes_ + shape.outer * shape.inner * word / 8;
    if (s.interleaved) {
      const BlockLayout layout = LayoutOf(s);
      row_bytes_ = BlocksOf(s, q.cols) * layout.bytes;
      codes_ += layout.begin[int(Part::kCode)];
      row_.packed.run = size_t(s.block);
      row_.packed.step = layout.bytes;
    } else {
      row_bytes_ = RowBytesApart(s.code, s.CodeCols(q.cols));
      row_.packed.run = q.cols;
    }
  }

  // `codes`: one byte each, where they are not packed.
  void Decode(size_t row, const uint8_t* codes, float* out) {
    scales_.Read(row, scale_.Get<float>(groups_), shift_.Get<float>(groups_), entries_);
    row_.code = codes;
    if (row_.packed.pattern) row_.packed.first = codes_ + row * row_bytes_;
    DecodeCodes(row_, out);
    if (rotation_) rotation_->Backward(out);
  }

 private:
  const Hadamard* rotation_;
  ScaleReader scales_;
  size_t groups_, row_bytes_ = 0;
  const uint8_t* codes_ = nullptr;
  DecodeRow row_;
  float* entries_ = nullptr;
  Scratch scale_, shift_, entry_memory_;
};

}  // namespace

void DequantizeScheme(const SchemeView& q, size_t first, size_t count, float* out) {
  const Scheme& s = *q.scheme;
  const size_t code_cols = s.CodeCols(q.cols);
  const bool vectors = s.values == Values::kCodebook || s.values == Values::kGroupTable;
  std::vector<float> padded;  // codes of a foreign file may lie past the table
  const float* table = s.learned ? q.table : s.table.data();
  if (s.values == Values::kCodebook) {
    padded.assign(table, table + size_t(s.codes) * size_t(s.dim));
    padded.resize((size_t{1} << s.bits) * size_t(s.dim));
    table = padded.data();
  }
  const CodeValues values = vectors ? CodeValues() : ValuesOf(s, table);
  const bool packed = CanDecodePacked(s, q.cols);
  const CodePattern pattern = packed ? PatternOf(s.code) : CodePattern();
  std::unique_ptr<const Hadamard> rotation;
  if (s.transform.hadamard) rotation = std::make_unique<const Hadamard>(s.transform, q.cols, s.name);
  const bool one_by_one = s.interleaved || RowsAreApart(s.code, code_cols);  // a row of codes stays in the first cache
  const size_t grain = std::max<size_t>(8, (size_t{1} << 15) / q.cols / 8 * 8);
  ParallelFor(count, grain, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(packed ? 0 : (one_by_one ? 1 : end - begin) * code_cols);
    RowDecoder decoder(q, vectors ? nullptr : &values, table, packed ? &pattern : nullptr, rotation.get());
    if (!one_by_one) ReadCodes(q, first + begin, end - begin, codes.data(), code_cols);
    for (size_t r = begin; r < end; ++r) {
      if (one_by_one && !packed) ReadCodes(q, first + r, 1, codes.data(), code_cols);
      decoder.Decode(first + r, codes.data() + (one_by_one ? 0 : r - begin) * code_cols, out + r * q.cols);
    }
  });
}

}  // namespace edgequant
