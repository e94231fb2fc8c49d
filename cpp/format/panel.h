// The run-time layout of weights for matrix products, and the map from a block description to it.
//
// A panel holds 16 rows side by side, 4 consecutive k of a row in one 32-bit lane: a "line" of 64 bytes is one step of
// 4 k for 16 rows. 32 k are a unit of `bits` lines: first the widest plane (8, 4, 2 or 1 bits of each code), then the
// plane with the high bits (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2). A w-bit plane line holds 8/w steps: byte (row, j), bits
// w*i up = step i, k = 4i + j. Units follow one another, with a header of scales in front of every few groups:
//
//   kF16     2 groups:            [2][16] f16 scales, [2][16] f16 minima if any; kBF16 and kF32 likewise
//   kByte    4 groups:            [4][16] E8M0 or UE4M3 scales (7 bits, 1/256 of the value; 0x7f is 480 / 256)
//   kInt8    a block of the format: [16] f16 scale, [16] f16 minimum, then [groups][16] int8 codes
//            of scales, [groups][16] of minima
//   kNibble  the same with both 4-bit codes in one byte, the minimum's in the upper half
//   kSign    the same with one int8 code, whose magnitude is the scale's and which itself is the minimum's
//
// The last header of a panel may stand in front of fewer groups; its size is the same. Missing rows have scales of 0.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/block.h"

namespace edgequant {

inline constexpr int kPanelRows = 16;
inline constexpr int kPanelLine = 64;   // bytes: 16 rows x 4 k, when a code is a byte
inline constexpr int kPanelUnit = 32;   // k in `bits` lines
inline constexpr int kShiftUnit = 8;    // steps of the table per 1 where a grid's rows are shifted

enum class PanelScale : uint8_t { kF16, kBF16, kF32, kE8M0, kUE4M3, kInt8, kNibble, kSign };

struct GridPanel;

struct PanelLayout {
  int bits = 0;              // 1 to 6, or 8, per code
  int group = 0;             // weights that share a scale: 16, 32, 64, 128 or 256
  PanelScale scale = PanelScale::kF16;
  bool minima = false;
  bool minima_in_scales = false;  // kF16 to kF32: minima count scales: the distance of a group's zero from `zero`
  bool table = false;        // the value is values[code], else code - zero; of 1 bit 2 * code - zero, 8 bits are signed
  int zero = 0;
  int8_t values[16] = {};
  float factor = 1;          // weight = factor * scale * value + min_factor * minimum
  float min_factor = 0;
  int groups_per_header = 2;
  int fold = 0;              // two levels: 1 if value * sub-scale is always an int8, -1 if its negative is
  const GridPanel* grid = nullptr;  // compact panels of rows of a grid (grid_panel.h); what follows is not for them
  size_t grid_bytes = 0;            // bytes of 512 k of them

  // Scales of groups are whole numbers times one number per header: sums of a header stay integers.
  constexpr bool two_level() const { return scale >= PanelScale::kInt8; }
  constexpr size_t number_bytes() const { return scale == PanelScale::kF32 ? 4 : 2; }  // of kF16 to kF32
  constexpr size_t header_bytes() const {
    const size_t codes = size_t(groups_per_header) * kPanelRows;
    switch (scale) {
      case PanelScale::kF16:
      case PanelScale::kBF16:
      case PanelScale::kF32: return (minima ? 2 : 1) * number_bytes() * codes;
      case PanelScale::kInt8: return kPanelLine + (minima ? 2 * codes : codes);
      case PanelScale::kNibble:
      case PanelScale::kSign: return kPanelLine + codes;
      default: return codes;
    }
  }
  constexpr size_t group_bytes() const { return size_t(kPanelRows) * size_t(group) * size_t(bits) / 8; }
  // Groups of a row of `cols` weights; an odd group of 16 brings its neighbour, as a unit is never split.
  constexpr size_t GroupsOf(size_t cols) const {
    const size_t n = (cols + size_t(group) - 1) / size_t(group);
    return group < kPanelUnit ? (n + 1) / 2 * 2 : n;
  }
  constexpr size_t HeadersOf(size_t groups) const {
    return (groups + size_t(groups_per_header) - 1) / size_t(groups_per_header);
  }
  constexpr size_t PanelBytes(size_t cols) const {
    if (grid) return (cols + 511) / 512 * grid_bytes;
    return HeadersOf(GroupsOf(cols)) * header_bytes() + GroupsOf(cols) * group_bytes();
  }
  // Where the header of group g and its codes begin; a group of 16 with an odd number begins inside its unit.
  constexpr size_t HeaderAt(size_t g) const {
    return g / size_t(groups_per_header) * (header_bytes() + size_t(groups_per_header) * group_bytes());
  }
  constexpr size_t CodesAt(size_t g) const {
    return HeaderAt(g) + header_bytes() + g % size_t(groups_per_header) * group_bytes();
  }
  // About where what group g needs begins, in compact panels too.
  constexpr size_t BlockAt(size_t g) const {
    return grid ? g / size_t(groups_per_header) * grid_bytes / 2 : CodesAt(g) - header_bytes();
  }
};

namespace panel_detail {

constexpr bool IsWhole(float v) { return v == float(int(v)); }

constexpr int CodeBits(const Block& b) {
  int bits = 0;
  for (const Field& f : b.codes) {
    const int top = f.kind == FieldKind::kNone ? 0 : f.kind == FieldKind::kTrits ? 2 : f.bits + f.up;
    if (top > bits) bits = top;
  }
  return bits;
}
constexpr int SubBits(const Level& s) {
  int bits = 0;
  for (const Field& f : s.sub)
    if (f.kind != FieldKind::kNone && f.bits + f.up > bits) bits = f.bits + f.up;
  return bits;
}

// Values that are whole numbers, or halves or quarters of such, as int8.
constexpr bool IntegerTable(const Map& map, int entries, PanelLayout* p) {
  for (int doubling = 1; doubling <= 4; doubling *= 2) {
    bool ok = true;
    for (int k = 0; k < entries; ++k) {
      const float v = map.values[k] * float(doubling);
      ok = ok && v >= -128 && v <= 127 && IsWhole(v);
      if (ok) p->values[k] = int8_t(v);
    }
    if (ok) return p->factor = 1.0f / float(doubling), true;
  }
  return false;
}

// Whether all weights of a group of scales are shifted to one side.
constexpr bool ShiftsGroups(const Block& b) {
  const Field& f = b.map.shift_sign;  // an element per 8 weights; lanes may share a bit
  return b.map.shift != 0 && f.lane_step == 0 && f.lanes * 8 >= b.scale.sub_group && b.scale.sub_group != 0;
}

// Levels one apart, shifted by the group: codes of the grid's own bits, and the shift is a minimum.
constexpr bool SetShiftedLevels(const Block& b, PanelLayout* p) {
  const GridTable& grid = *b.map.grid;
  if (!ShiftsGroups(b) || b.map.signs.kind != FieldKind::kNone) return false;
  if (b.scale.sub_zero != -.5f || SubBits(b.scale) > 6) return false;
  for (int row = 0; row < grid.rows; ++row)
    for (int k = 0; k < grid.dim; ++k) {
      const int level = grid.packed[row] >> k * grid.bits & ((1 << grid.bits) - 1);
      if (grid.levels[level] != grid.levels[0] + level) return false;
    }
  p->bits = grid.bits;
  p->zero = -grid.levels[0];
  p->scale = PanelScale::kSign;
  return true;
}

// A grid's rows hold few different values, so their weights are codes of a small table, at 3 or 4 bits each: the grid's
// own index of the level, with the bits of the sign and of the shift above it.
constexpr bool SetGridValues(const Block& b, PanelLayout* p) {
  const GridTable& grid = *b.map.grid;
  const int unit = b.map.shift != 0 ? kShiftUnit : 1, level = (1 << grid.bits) - 1;
  const float shift = b.map.shift * float(unit);
  const bool negates = b.map.signs.kind != FieldKind::kNone, moves = b.map.shift != 0;
  p->bits = grid.bits + negates + moves;
  if (!IsWhole(shift) || p->bits < 2 || p->bits > 4) return false;
  for (int code = 0; code < 1 << p->bits; ++code) {
    const int magnitude = (code & level) < 8 ? grid.levels[code & level] * unit : 0, flags = code >> grid.bits;
    const bool negative = negates && flags % 2 != 0, down = moves && flags >> negates != 0;
    const int value = (negative ? -magnitude : magnitude) + int(down ? -shift : shift);
    if (value < -128 || value > 127) return false;
    p->values[code] = int8_t(value);
  }
  p->table = true;
  p->factor = 1.0f / float(unit);
  return true;
}

constexpr bool SetValues(const Block& b, PanelLayout* p) {
  if (b.map.kind == MapKind::kGrid) return SetShiftedLevels(b, p) || SetGridValues(b, p);
  if (b.map.kind == MapKind::kAffine) {
    p->zero = b.map.zero;
    if (p->bits == 1) p->zero *= 2, p->factor = 0.5f;
    if (p->bits == 8) p->zero = 0;
    const int low = b.codes[0].is_signed ? -128 : 0, high = b.codes[0].is_signed ? 127 : (1 << CodeBits(b)) - 1;
    return low - b.map.zero >= -128 && high - b.map.zero <= 127;
  }
  if (b.map.kind != MapKind::kTable || p->bits > 4) return false;
  if (!IntegerTable(b.map, 1 << CodeBits(b), p)) return false;
  p->table = p->bits > 1;
  if (p->table) return true;
  p->zero = 1;  // one bit: only -a and a
  p->factor *= float(p->values[1]);
  return p->values[0] == -p->values[1];
}

// The least and largest of products of [a, b] and [c, d].
constexpr int LeastProduct(int a, int b, int c, int d) {
  const int products[] = {a * c, a * d, b * c, b * d};
  int least = products[0];
  for (int v : products) least = v < least ? v : least;
  return least;
}
constexpr int FoldOf(const Level& s, const PanelLayout& p) {
  int low = p.table ? 127 : -p.zero, high = p.table ? -128 : (1 << p.bits) - 1 - p.zero;
  if (p.bits > 4 || p.bits == 1) return 0;
  for (int c = 0; p.table && c < 1 << p.bits; ++c) {
    low = p.values[c] < low ? p.values[c] : low;
    high = p.values[c] > high ? p.values[c] : high;
  }
  const int bits = SubBits(s), doubled = IsWhole(s.sub_zero) ? 1 : 2, zero = int(doubled * s.sub_zero);
  if (s.sub[0].is_signed) return 0;
  const int first = -zero, last = ((1 << bits) - 1) * doubled - zero;
  const int least = LeastProduct(low, high, first, last), most = -LeastProduct(low, high, -last, -first);
  return least >= -128 && most <= 127 ? 1 : least >= -127 && most <= 128 ? -1 : 0;
}

constexpr bool SetScales(const Block& b, PanelLayout* p) {
  const Level &s = b.scale, &m = b.offset;
  p->minima = m.type != Number::kNone;
  p->factor *= s.factor;
  p->min_factor = m.factor;
  if (p->minima && (m.type != Number::kF16 || m.group != s.group || m.sub_group != s.sub_group || m.sub_zero != 0))
    return false;
  if (s.sub_group == 0) {
    p->group = s.group ? s.group : b.n;
    p->groups_per_header = s.type == Number::kF16 ? 2 : 4;
    switch (s.type) {
      case Number::kF16: p->scale = PanelScale::kF16; return true;
      case Number::kE8M0Half: p->scale = PanelScale::kE8M0; return !p->minima;
      case Number::kE8M0: p->scale = PanelScale::kE8M0; p->factor *= 2; return !p->minima;
      case Number::kUE4M3: p->scale = PanelScale::kUE4M3; p->factor *= 256; return !p->minima;
      default: return false;
    }
  }
  if (s.type != Number::kF16 || s.group != 0) return false;
  p->group = s.sub_group;
  p->groups_per_header = b.n / s.sub_group;
  if (p->scale == PanelScale::kSign) {
    p->minima = true;
    p->min_factor = p->factor * b.map.shift * 0.5f;  // the codes are doubled
  } else {
    p->scale =
        p->minima && SubBits(s) <= 4 && SubBits(m) <= 4 && s.sub_zero == 0 ? PanelScale::kNibble : PanelScale::kInt8;
  }
  if (!IsWhole(s.sub_zero)) p->factor *= 0.5f;  // the codes are doubled
  p->fold = FoldOf(s, *p);
  return true;
}

}  // namespace panel_detail

// The sub-scale code that a panel stores for the integer `code` of the block.
constexpr int PanelScaleCode(const Level& s, int code) {
  return panel_detail::IsWhole(s.sub_zero) ? code - int(s.sub_zero) : 2 * code - int(2 * s.sub_zero);
}

// False for formats that have no panel: tables of other than small whole numbers, scales of other types.
constexpr bool PanelOf(const Block& b, PanelLayout* layout) {
  PanelLayout p;
  p.bits = b.map.kind == MapKind::kGrid ? 4 : panel_detail::CodeBits(b);
  if (p.bits == 7) p.bits = 8;
  if (p.bits < 1 || p.bits > 8 || 256 % b.n != 0 || b.n < kPanelRows) return false;
  if (!panel_detail::SetValues(b, &p) || !panel_detail::SetScales(b, &p)) return false;
  if (p.group < 16 || 256 % p.group != 0) return false;
  *layout = p;
  return true;
}

}  // namespace edgequant
