// Plain loops over 8 bytes at a time, compiled once per target: the compiler vectorizes them.
#include "kernels/cpu/panel_pack.h"

#include <string.h>

#include <algorithm>

#include "format/encode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_pack.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {

constexpr int kChunk = 256;  // k packed at a time: a whole number of blocks, groups and units

// `value` in all 8 bytes: shifts and masks of 8 codes at once, whose neighbours' bits the mask removes.
constexpr uint64_t Bytes8(int value) { return uint64_t(value) * 0x0101010101010101ull; }

HWY_INLINE uint64_t Load8(const uint8_t* p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return v;
}

// ORs elements of n (a multiple of 8) consecutive bytes, all at the same bits.
HWY_INLINE void ReadPlane(const uint8_t* HWY_RESTRICT p, int n, int shift, uint64_t mask, int up,
                          uint8_t* HWY_RESTRICT out) {
  for (int i = 0; i < n; i += 8) {
    const uint64_t v = Load8(out + i) | (Load8(p + i) >> shift & mask) << up;
    memcpy(out + i, &v, 8);
  }
}
// A stream of 1, 2 or 4 bits: 8, 4 or 2 elements of a byte spread to bytes.
HWY_INLINE void ReadStream(const uint8_t* HWY_RESTRICT p, int n, int bits, int up, uint8_t* HWY_RESTRICT out) {
  for (int i = 0; i < n; i += 8, p += bits) {
    uint64_t v = 0;
    memcpy(&v, p, size_t(bits));
    if (bits == 4) v = (v | v << 16) & 0x0000ffff0000ffffull, v = (v | v << 8) & 0x00ff00ff00ff00ffull, v |= v << 4;
    if (bits == 2) v = (v | v << 24) & 0x000000ff000000ffull, v = (v | v << 12) & 0x000f000f000f000full, v |= v << 6;
    if (bits == 1) v = (v | v << 28) & 0x0000000f0000000full, v = (v | v << 14) & 0x0003000300030003ull, v |= v << 7;
    v = Load8(out + i) | (v & Bytes8((1 << bits) - 1)) << up;
    memcpy(out + i, &v, 8);
  }
}

// Adds one field of all elements of `count` blocks to `out`, which holds n bytes per block.
void ReadElements(const Field& f, const uint8_t* HWY_RESTRICT block, size_t bytes, int count, int n,
                  uint8_t* HWY_RESTRICT out) {
  const int begin = f.begin, end = std::min(n, f.end), chunk = f.lanes * f.slots;
  const bool planes = f.lane_step == 8 && f.lanes % 8 == 0 && (end - begin) % f.lanes == 0;
  const bool stream =
      f.kind == FieldKind::kBits && chunk == 1 && f.chunk_step == f.bits && f.start % 8 == 0 && n % 8 == 0;
  const uint64_t mask = Bytes8((1 << f.bits) - 1);
  for (int b = 0; b < count; ++b, block += bytes, out += n) {
    if (f.kind == FieldKind::kBits && planes) {
      for (int i = begin, at = f.start; i < end; i += chunk, at += f.chunk_step)
        for (int s = 0; s < f.slots && i + s * f.lanes < end; ++s) {
          const unsigned bit = unsigned(at + s * f.slot_step);
          ReadPlane(block + bit / 8, f.lanes, int(bit % 8), mask, f.up, out + i + s * f.lanes);
        }
    } else if (f.kind == FieldKind::kTrits && planes) {
      for (int i = begin; i < end; i += f.lanes) {
        const uint8_t* p = block + FirstBit(f, i) / 8;
        const int power = PowerOf3(SlotOf(f, i));
        for (int l = 0; l < f.lanes; ++l) out[i + l] = uint8_t((p[l] * power & 255) * 3 >> 8);
      }
    } else if (stream && f.bits == 8 && f.up == 0) {
      memcpy(out, block + f.start / 8, size_t(n));
    } else if (stream && (f.bits == 1 || f.bits == 2 || f.bits == 4)) {
      ReadStream(block + f.start / 8, n, f.bits, f.up, out);
    } else {
      for (int i = begin; i < end; ++i) out[i] = uint8_t(out[i] | ReadField(f, block, i));
    }
  }
}

// The weights of `count` grid blocks as codes of the panel's table.
void ReadGrid(const Block& b, const PanelLayout& layout, const uint8_t* HWY_RESTRICT block, int count,
              uint8_t* HWY_RESTRICT out) {
  const GridTable& grid = *b.map.grid;
  const int unit = b.map.shift != 0 ? kShiftUnit : 1, shift = int(b.map.shift * float(unit)), level_mask = (1 << grid.bits) - 1;
  uint8_t code_of[256] = {};
  for (int c = (1 << layout.bits) - 1; c >= 0; --c) code_of[uint8_t(layout.values[c])] = uint8_t(c);
  for (; count != 0; --count, block += b.bytes)
    for (int i = 0; i < b.n; i += 8) {
      int minus = ReadField(b.map.signs, block, i / 8);
      if (b.map.signs.bits == 7) minus |= (__builtin_popcount(unsigned(minus)) & 1) << 7;
      const int move = b.map.shift != 0 && ReadField(b.map.shift_sign, block, i / 8) ? -shift : shift;
      for (int first = 0; first < 8; first += grid.dim) {
        const int c = (i + first) / grid.dim, row = grid.packed[ReadField(b.codes[0], block, c) | ReadField(b.codes[1], block, c)];
        for (int k = 0; k < grid.dim; ++k) {
          const int level = grid.levels[row >> k * grid.bits & level_mask] * unit;
          *out++ = code_of[uint8_t((minus >> (first + k) & 1 ? -level : level) + move)];
        }
      }
    }
}

// 32 k of 16 rows, kChunk bytes apart, to the lines of a unit.
void PackUnit(const uint8_t* HWY_RESTRICT codes, int bits, uint8_t* HWY_RESTRICT out) {
  alignas(64) uint64_t line[8][kPanelLine / 8];
  for (int r = 0; r < kPanelRows; ++r)
    for (int s = 0; s < 8; ++s) memcpy(reinterpret_cast<uint8_t*>(line[s]) + 4 * r, codes + r * kChunk + 4 * s, 4);
  int done = 0;
  for (int width : {bits >= 8   ? 8
                    : bits >= 4 ? 4
                    : bits >= 2 ? 2
                                : 1,
                    bits == 3 || bits == 5 ? 1
                    : bits == 6            ? 2
                                           : 0}) {
    if (width == 0) continue;
    const int per_line = 8 / width;
    const uint64_t mask = Bytes8((1 << width) - 1);
    for (int l = 0; l < width; ++l, out += kPanelLine) {
      uint64_t v[kPanelLine / 8] = {};
      for (int i = 0; i < per_line; ++i)
        for (int b = 0; b < kPanelLine / 8; ++b) v[b] |= (line[l * per_line + i][b] >> done & mask) << (width * i);
      memcpy(out, v, kPanelLine);
    }
    done += width;
  }
}

int SubCode(const Level& s, const uint8_t* block, int j) {
  return ReadField(s.sub[0], block, j) | ReadField(s.sub[1], block, j);
}

// Group j of a block, which is group `at` of the header at `out`, of one row.
HWY_INLINE void PackScale(const Block& b, const PanelLayout& layout, const uint8_t* block, int j, int at, int row,
                          uint8_t* out) {
  const uint8_t *scale = block + b.scale.byte, *minimum = block + b.offset.byte;
  uint8_t joined[4];
  if (b.scale.pieces.kind != FieldKind::kNone) {
    WriteNumber(b.scale.type, joined, ReadLevelNumber(b.scale, block, j) / b.scale.factor);
    scale = joined;
  }
  switch (layout.scale) {
    case PanelScale::kF16:
      memcpy(out + (at * kPanelRows + row) * 2, scale + 2 * j, 2);
      if (layout.minima) memcpy(out + 64 + (at * kPanelRows + row) * 2, minimum + 2 * j, 2);
      return;
    case PanelScale::kE8M0: out[at * kPanelRows + row] = scale[j]; return;
    case PanelScale::kUE4M3:  // 0x7f is 0, a set top bit is ignored
      out[at * kPanelRows + row] = scale[j] == 127 ? 0 : scale[j] & 127;
      return;
    case PanelScale::kInt8:
    case PanelScale::kNibble: break;
  }
  memcpy(out + row * 2, scale, 2);
  if (layout.minima) memcpy(out + 32 + row * 2, minimum, 2);
  uint8_t* codes = out + kPanelLine + at * kPanelRows + row;
  const int code = PanelScaleCode(b.scale, SubCode(b.scale, block, j));
  if (layout.scale == PanelScale::kNibble) {
    *codes = uint8_t(code | SubCode(b.offset, block, j) << 4);
  } else {
    *codes = uint8_t(code);
    if (layout.minima) codes[layout.groups_per_header * kPanelRows] = uint8_t(SubCode(b.offset, block, j));
  }
}

void Pack(const Block& b, const PanelLayout& layout, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  alignas(64) uint8_t codes[kPanelRows][kChunk];
  const size_t groups = layout.GroupsOf(cols), group = size_t(layout.group),
               per_header = size_t(layout.groups_per_header);
  for (size_t g = 0; g < groups; g += per_header) memset(out + layout.HeaderAt(g), 0, layout.header_bytes());
  for (size_t k0 = 0; k0 < groups * group; k0 += kChunk) {
    const size_t end = std::min(k0 + kChunk, groups * group), last = std::min(end, cols), first_group = k0 / group;
    const int blocks = int((last - k0) / size_t(b.n));
    uint8_t* header[kChunk / 16];  // of each group
    for (size_t g = first_group; g * group < end; ++g) header[g - first_group] = out + layout.HeaderAt(g);
    memset(codes, 0, sizeof codes);
    for (int r = 0; r < kPanelRows; ++r) {
      if (!rows[r]) continue;
      const uint8_t* block = rows[r] + k0 / size_t(b.n) * size_t(b.bytes);
      if (b.map.kind == MapKind::kGrid) {
        ReadGrid(b, layout, block, blocks, codes[r]);
      } else {
        for (const Field& f : b.codes)
          if (f.kind != FieldKind::kNone) ReadElements(f, block, size_t(b.bytes), blocks, b.n, codes[r]);
      }
      int i = 0;
      for (int at = int(first_group % per_header); i < blocks * (b.n / layout.group); block += b.bytes)
        for (int j = 0; j < b.n / layout.group; ++j, ++i) {
          PackScale(b, layout, block, j, at, r, header[i]);
          at = at + 1 == int(per_header) ? 0 : at + 1;
        }
      if (layout.bits == 8 && b.map.zero != 0)
        for (uint8_t& c : codes[r]) c = uint8_t(c - b.map.zero);
    }
    for (size_t k = k0; k < end; k += kPanelUnit) {
      const size_t g = k / group;  // even for groups of 16
      PackUnit(codes[0] + (k - k0), layout.bits,
               out + layout.CodesAt(g) + (k - g * group) / kPanelUnit * size_t(layout.bits) * kPanelLine);
    }
  }
}

void PackCodes(const PanelCodes& from, const PanelLayout& layout, size_t cols, uint8_t* out) {
  alignas(64) uint8_t codes[kPanelRows][kChunk];
  const size_t groups = layout.GroupsOf(cols), group = size_t(layout.group), per_header = size_t(layout.groups_per_header);
  for (size_t g = 0; g < groups; g += per_header) memset(out + layout.HeaderAt(g), 0, layout.header_bytes());
  for (size_t g = 0; g < groups; ++g)
    for (size_t r = 0; r < from.count; ++r) {
      uint8_t* const header = out + layout.HeaderAt(g) + (g % per_header * kPanelRows + r) * 2;
      memcpy(header, from.scales + r * from.group_stride + g, 2);
      if (layout.minima) memcpy(header + per_header * kPanelRows * 2, from.minima + r * from.group_stride + g, 2);
    }
  for (size_t k0 = 0; k0 < groups * group; k0 += kChunk) {
    const size_t end = std::min(k0 + kChunk, groups * group), last = std::min(end, cols);
    memset(codes, 0, sizeof codes);
    for (size_t r = 0; r < from.count; ++r)
      if (k0 < last) memcpy(codes[r], from.codes + r * from.code_stride + k0, last - k0);
    for (size_t k = k0; k < end; k += kPanelUnit) {
      const size_t g = k / group;  // even for groups of 16
      PackUnit(codes[0] + (k - k0), layout.bits,
               out + layout.CodesAt(g) + (k - g * group) / kPanelUnit * size_t(layout.bits) * kPanelLine);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(Pack);
HWY_EXPORT(PackCodes);

}  // namespace panel

void PackPanel(const Block& block, const PanelLayout& layout, const uint8_t* const rows[kPanelRows], size_t cols,
               uint8_t* out) {
  using namespace panel;
  HWY_DYNAMIC_DISPATCH(Pack)(block, layout, rows, cols, out);
}

void PackPanelCodes(const PanelCodes& from, const PanelLayout& layout, size_t cols, uint8_t* out) {
  using namespace panel;
  HWY_DYNAMIC_DISPATCH(PackCodes)(from, layout, cols, out);
}

}  // namespace edgequant
#endif
