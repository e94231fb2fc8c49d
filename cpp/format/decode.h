// Decode one weight of any described format. Plain scalar C++ without the STL: host compilers and nvcc accept it.
#pragma once
#include <string.h>

#include "format/block.h"

#if defined(__CUDACC__)
#define EDGEQUANT_INLINE __host__ __device__ __forceinline__
#else
#define EDGEQUANT_INLINE inline __attribute__((always_inline))
#endif

namespace edgequant {

EDGEQUANT_INLINE float FloatOfBits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

EDGEQUANT_INLINE float F16ToF32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) return FloatOfBits(sign | 0x7f800000 | magnitude << 13);  // inf, NaN
  const float f = FloatOfBits(magnitude << 13) * 5.192296858534828e33f;              // * 2^112, exact, also subnormals
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return FloatOfBits(bits | sign);
}

EDGEQUANT_INLINE float ReadNumber(Number type, const uint8_t* p) {
  switch (type) {
    case Number::kF32: return FloatOfBits(p[0] | p[1] << 8 | p[2] << 16 | uint32_t(p[3]) << 24);
    case Number::kF16: return F16ToF32(uint16_t(p[0] | p[1] << 8));
    case Number::kBF16: return FloatOfBits(p[0] << 16 | uint32_t(p[1]) << 24);
    case Number::kE8M0: return FloatOfBits(p[0] ? uint32_t(p[0]) << 23 : 0x00400000);
    case Number::kE8M0Half: return FloatOfBits(p[0] < 2 ? 0x00200000u << p[0] : (p[0] - 1u) << 23);
    case Number::kUE4M3:  // as GGML reads it: 0x7f is 0, a set top bit is ignored; * 2^120 is exact
      return p[0] == 0x7f ? 0.0f : FloatOfBits(uint32_t(p[0] & 0x7f) << 20) * 1.329227995784916e36f;
    case Number::kNone: break;
  }
  return 0.0f;
}

EDGEQUANT_HD constexpr bool Covers(const Field& f, int i) {
  return f.kind != FieldKind::kNone && i >= f.begin && i < f.end;
}
EDGEQUANT_HD constexpr int SlotOf(const Field& f, int i) { return (i - f.begin) / f.lanes % f.slots; }
EDGEQUANT_HD constexpr int FirstBit(const Field& f, int i) {
  return f.start + (i - f.begin) % f.lanes * f.lane_step + SlotOf(f, i) * f.slot_step +
         (i - f.begin) / (f.lanes * f.slots) * f.chunk_step;
}
EDGEQUANT_HD constexpr bool MayStraddle(const Field& f) {
  return f.bits != 1 && f.bits != 2 && f.bits != 4 && f.bits != 8;
}
EDGEQUANT_HD constexpr int PowerOf3(int k) { return k == 0 ? 1 : k == 1 ? 3 : k == 2 ? 9 : k == 3 ? 27 : 81; }

EDGEQUANT_INLINE int ReadField(const Field& f, const uint8_t* block, int i) {
  if (!Covers(f, i)) return 0;
  const int at = FirstBit(f, i);
  int v = block[at / 8];
  if (f.kind == FieldKind::kTrits) return (v * PowerOf3(SlotOf(f, i)) & 255) * 3 >> 8;
  if (MayStraddle(f) && at % 8 + f.bits > 8) v |= block[at / 8 + 1] << 8;
  v = v >> at % 8 & ((1 << f.bits) - 1);
  if (f.is_signed && v >> (f.bits - 1)) v -= 1 << f.bits;
  return v << f.up;
}

// Number k of a level.
EDGEQUANT_INLINE float ReadLevelNumber(const Level& s, const uint8_t* block, int k) {
  if (s.pieces.kind == FieldKind::kNone) return s.factor * ReadNumber(s.type, block + s.byte + k * SizeOf(s.type));
  uint8_t bytes[4] = {};
  for (int at = 0, p = 0; at < SizeOf(s.type) * 8; at += s.pieces.bits, ++p) {
    const uint32_t piece = uint32_t(ReadField(s.pieces, block, p)) << at % 8;
    bytes[at / 8] |= uint8_t(piece);
  }
  return s.factor * ReadNumber(s.type, bytes);
}

EDGEQUANT_INLINE float ReadLevel(const Level& s, const uint8_t* block, int i) {
  const float number = ReadLevelNumber(s, block, s.group ? i / s.group : 0);
  if (s.sub_group == 0) return number;
  const int j = i / s.sub_group;
  return number * (float(ReadField(s.sub[0], block, j) | ReadField(s.sub[1], block, j)) - s.sub_zero);
}

// 1 where weight i of a grid format is negated.
EDGEQUANT_INLINE int ReadSign(const Field& signs, const uint8_t* block, int i) {
  int bits = ReadField(signs, block, i / 8);
  if (signs.bits == 7) {  // bit 7 is the parity of the others
    int parity = bits ^ bits >> 4;
    parity ^= parity >> 2;
    bits |= ((parity ^ parity >> 1) & 1) << 7;
  }
  return bits >> i % 8 & 1;
}

// Weight k % dim of row k / dim.
EDGEQUANT_HD constexpr int GridValue(const GridTable& grid, int row, int k) {
  return grid.levels[grid.packed[row] >> k * grid.bits & ((1 << grid.bits) - 1)];
}

// A copy that device code may hold: a device has no address of the host's grid.
EDGEQUANT_HD constexpr Block WithoutGrid(Block b) {
  b.map.grid = nullptr;
  return b;
}

// Weight i of the block at `block`. Build with -ffp-contract=off (nvcc: -fmad=false).
template <const Block& kFormat>
EDGEQUANT_INLINE float Decode(const uint8_t* block, int i) {
  static constexpr Block f = WithoutGrid(kFormat);  // a local constant: device code may index it
  const int c = i / f.map.dim;
  const int code = ReadField(f.codes[0], block, c) | ReadField(f.codes[1], block, c) | ReadField(f.codes[2], block, c);
  float value;
  if constexpr (f.map.kind == MapKind::kAffine) {
    value = float(code - f.map.zero);
  } else if constexpr (f.map.kind == MapKind::kTable) {
    value = f.map.values[code];
  } else {
    static constexpr GridTable grid = *kFormat.map.grid;
    value = float(GridValue(grid, code, i % f.map.dim)) * float(1 - 2 * ReadSign(f.map.signs, block, i));
    if constexpr (f.map.shift != 0) value += f.map.shift * float(1 - 2 * ReadField(f.map.shift_sign, block, i / 8));
  }
  float y = value * ReadLevel(f.scale, block, i);
  if constexpr (f.offset.type != Number::kNone) y += ReadLevel(f.offset, block, i);
  return y;
}

}  // namespace edgequant
