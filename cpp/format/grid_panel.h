// Panels of weights that are rows of a grid: the compact one, of numbers of rows, signs and scales at the format's own
// rate; and the panel of trits (below), of single weights of three levels.
//
// 16 rows lie side by side, a lane of 32 bits per row, in lines of 64 bytes; 256 k of a row are a block, two blocks
// have one header in front of them:
//
//   header   [2 blocks][16] f16 scales, then [2 blocks][groups / 8] lines of 8 4-bit codes s in a lane, for 2 s + 1;
//            where groups are shifted, s has 3 bits, and bit 3 says that the shift is downwards
//   block    lines of the lower 8 bits of codes, a byte per code, 4 codes of a row in its lane;
//            lines of the upper bits, one plane after another: bit j % 8 of the bytes of line j / 8 belongs to line j;
//            lines of signs, one per 32 k; and a line of shifts, bit 7 - j % 8 of which belongs to line j
//
// A row of a grid is two bytes of level numbers (2 bits each of 8, or 3 and a gap of 4 weights), which kernels look up
// in two tables of bytes. A step takes its 4 k from 4 places of 16: step i of 16 k has k = i, 4 + i, 8 + i and 12 + i.
//
// Trits: rows of 8 weights of three levels. The numbers of the levels of weights 0, 1 and 2 of four are digits of a
// number t of 5 bits, the lowest first. A byte j of a lane is for k = 4 j to 4 j + 3 of 16. One look-up gives a weight,
// with its sign or shift, and takes the 6 or 7 bits that it needs where they lie:
//
//   header   as above, for groups of 16; but with signs the codes of scales are in the block
//   block    with shifts (d: downwards): a line for each 16 k, of t + 32 d + 64 level of weight 3
//            with signs n, per 32 k: a line for each 16 k of n0 + 2 t + 64 n1 + 128 n2, then a line of the weights 3:
//            level + 4 n3 of the first 16 k in bits 0-2, of the second in bits 3-5, and their scale codes in bits 6-7
//            of bytes 0 and 1, and of bytes 2 and 3
#pragma once
#include "format/panel.h"

namespace edgequant {

inline constexpr int kGridBlock = 256, kGridHeaderBlocks = 2, kMaxGridRows = 2048;

enum class GridShift : uint8_t { kNone, kGroup, kCode };  // no shift, one per group of scales, one per code

struct GridPanel {
  int dim = 0, code_bits = 0;  // weights per code: 4 or 8; 8 to 11 bits
  bool signs = false, trits = false;
  GridShift shift = GridShift::kNone;
  alignas(64) uint8_t planes[2][kMaxGridRows] = {};
  uint16_t rows[kMaxGridRows] = {};  // the same, plane 1 in the upper byte
  // By level number, then (above) sign, then shift. Moved levels are in steps of 1 / kShiftUnit.
  alignas(64) int8_t values[16] = {};
  // The same for indices of 6 bits, or 7 with shifts. 8 weights per code: of weights i and 4 + i, where the levels of
  // weights 0 and 1, or 2 and 3 two bits higher, lie with their signs in the gap and the shift in bit 6; 4: of any
  // weight in the lower half of its byte.
  // Trits: `planes` has t + 32 * level of weight 3 for both halves of rows, and wide[i] the values of weight i, by 6 or
  // 7 bits of the byte: from bit 0, or 1 for weight 2 with signs, or 5 for weight 3 with shifts. With signs, wide[3]
  // has those of the first 16 k, and from entry 64 on those of the second.
  alignas(64) int8_t wide[4][128] = {};

  constexpr int code_lines() const { return kGridBlock / dim / 4; }
  constexpr int high_lines() const { return (code_bits - 8) * code_lines() / 8; }
  constexpr int sign_lines() const { return signs ? kGridBlock / kPanelUnit : 0; }
  constexpr int shift_lines() const { return shift == GridShift::kCode ? 1 : 0; }
  constexpr int lines() const {
    if (trits) return signs ? 24 : 16;
    return code_lines() + high_lines() + sign_lines() + shift_lines();
  }
  constexpr int scale_lines(int group) const { return trits && signs ? 0 : kGridBlock / group / 8; }  // of a block
};

// Which bit of a byte of signs is for half `odd` of 32 k. 8 weights per code: weight i or 4 + i of the code that the
// byte belongs to; 4: weight i of the code.
constexpr int GridSignBit(int dim, int i, int odd) {
  if (dim == 8) return (i < 2 ? 4 + i : i - 2) + 2 * odd;
  return (i % 2 ? 7 : 3) - (i / 2 + 2 * odd);
}

// False if weights of this description have no compact panel.
constexpr bool GridPanelOf(const Block& b, GridPanel* panel) {
  if (b.map.kind != MapKind::kGrid || b.n != kGridBlock) return false;
  const GridTable& grid = *b.map.grid;
  const int level_bits = grid.dim == 8 ? 2 : 3;
  if ((grid.dim != 8 && grid.dim != 4) || grid.bits > level_bits || grid.rows > kMaxGridRows) return false;
  GridPanel p;
  p.dim = grid.dim;
  p.code_bits = 8;
  while (1 << p.code_bits < grid.rows) ++p.code_bits;
  p.signs = b.map.signs.kind != FieldKind::kNone;
  const int shift = int(b.map.shift * float(kShiftUnit));
  if (shift != 0) {
    if (p.dim != 8 || b.map.shift != float(shift) / float(kShiftUnit)) return false;
    p.shift = panel_detail::ShiftsGroups(b) ? GridShift::kGroup : GridShift::kCode;
  }
  for (int r = 0; r < grid.rows; ++r)
    for (int k = 0; k < p.dim; ++k) {
      const int level = grid.packed[r] >> k * grid.bits & ((1 << grid.bits) - 1), half = p.dim / 2;
      p.planes[k / half][r] = uint8_t(p.planes[k / half][r] | level << k % half * (8 / half));
      p.rows[r] = uint16_t(p.planes[0][r] | p.planes[1][r] << 8);
    }
  for (int code = 0; code < 16; ++code) {
    const int level = code & ((1 << level_bits) - 1);
    int value = level < 8 ? grid.levels[level] : 0;
    if (p.signs && (code >> level_bits & 1)) value = -value;
    if (p.shift == GridShift::kCode) value = value * kShiftUnit + (code >> 3 & 1 ? -shift : shift);
    if (value < -128 || value > 127) return false;
    p.values[code] = int8_t(value);
  }
  for (int i = 0; i < 4; ++i)
    for (int index = 0; index < 128; ++index) {
      const int level = index >> (i < 2 ? 2 * i : 2 * i - 2) & 3, sign = index >> (i < 2 ? 4 + i : i - 2) & 1;
      p.wide[i][index] = p.values[p.dim == 4 ? index & 15 : level | sign << 2 | (index >> 6) << 3];
    }
  *panel = p;
  return true;
}

// The same for trits.
constexpr bool TritPanelOf(const Block& b, GridPanel* panel) {
  if (b.map.kind != MapKind::kGrid || b.n != kGridBlock) return false;
  const GridTable& grid = *b.map.grid;
  GridPanel p;
  p.trits = true;
  p.dim = 8;
  p.signs = b.map.signs.kind != FieldKind::kNone;
  const int unit = p.signs ? 1 : kShiftUnit, shift = int(b.map.shift * float(unit));
  if (grid.dim != p.dim || grid.bits != 2 || grid.rows > kMaxGridRows || p.signs == (shift != 0)) return false;
  if (!p.signs) p.shift = GridShift::kCode;
  for (int r = 0; r < grid.rows; ++r)
    for (int half = 0; half < 2; ++half) {
      int digit[4] = {};
      for (int i = 0; i < 4; ++i) digit[i] = grid.packed[r] >> (4 * half + i) * 2 & 3;
      for (int d : digit)
        if (d == 3) return false;
      p.planes[half][r] = uint8_t(digit[0] + 3 * digit[1] + 9 * digit[2] + 32 * digit[3]);
    }
  for (int i = 0; i < 4; ++i)
    for (int index = 0; index < 128; ++index) {
      int level = 0, t = index & 31, down = index >> 5 & 1;
      if (p.signs && i < 3) {
        t = (i == 2 ? index : index >> 1) & 31;
        down = i == 0 ? index & 1 : index >> 6;
      } else if (i == 3) {
        const int last = p.signs && index >= 64 ? index >> 3 & 7 : index & 7;
        level = p.signs ? last & 3 : last >> 1;
        down = p.signs ? last >> 2 : last & 1;
      }
      for (int place = 0, rest = t; place <= i && i < 3; ++place, rest /= 3) level = rest % 3;
      const int value = level == 3 ? 0 : grid.levels[level] * unit;
      if (value - shift < -128 || value + shift > 127) return false;
      p.wide[i][index] = int8_t(p.signs ? (down ? -value : value) : value + (down ? -shift : shift));
    }
  *panel = p;
  return true;
}

// The layout of such a panel, which must outlive it.
constexpr bool GridLayoutOf(const Block& b, const GridPanel& grid, PanelLayout* layout) {
  const Level& s = b.scale;
  if (s.type != Number::kF16 || s.group != 0 || s.sub_zero != -.5f) return false;
  if (s.sub_group != 16 && s.sub_group != 32) return false;
  if (panel_detail::SubBits(s) > (grid.shift == GridShift::kGroup ? 3 : 4)) return false;
  PanelLayout p;
  p.bits = 4;
  p.table = true;
  p.group = grid.trits ? 16 : s.sub_group;
  p.scale = PanelScale::kNibble;
  p.groups_per_header = kGridBlock / p.group;
  p.factor = s.factor * 0.5f;  // for 2 s + 1
  if (grid.shift == GridShift::kCode) p.factor /= float(kShiftUnit);
  p.minima = grid.shift == GridShift::kGroup;
  if (p.minima) p.min_factor = p.factor * b.map.shift;
  p.grid = &grid;
  p.grid_bytes = kPanelLine + size_t(kGridHeaderBlocks * (grid.scale_lines(p.group) + grid.lines())) * kPanelLine;
  *layout = p;
  return true;
}

}  // namespace edgequant
