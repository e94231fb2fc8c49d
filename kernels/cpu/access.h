// How a run of a field's elements can be read with vectors: decided by the compiler, the same on every target.
#pragma once
#include <stdint.h>

#include <algorithm>

#include "format/decode.h"

namespace edgequant {

// kPlane: consecutive bytes, one shift. kWindow: anything within 16 bytes. Otherwise the run is split in two.
enum class Access { kAbsent, kPlane, kWindow, kSplit };

// Elements [first, first + count) of f, where a vector holds n >= count of them.
constexpr Access AccessOf(const Field& f, int first, int n, int count) {
  const bool begins = Covers(f, first), ends = Covers(f, first + count - 1);
  if (!begins && !ends) return Access::kAbsent;
  if (!begins || !ends) return Access::kSplit;
  const int at = FirstBit(f, first);
  bool plane = at % 8 + f.bits <= 8 && count == n;
  int low = at / 8, high = at / 8;
  for (int k = 0; k < count; ++k) {
    const int bit = FirstBit(f, first + k);
    if (bit != at + 8 * k || (f.kind == FieldKind::kTrits && SlotOf(f, first + k) != SlotOf(f, first))) plane = false;
    low = std::min(low, bit / 8);
    high = std::max(high, (bit + f.bits - 1) / 8);
  }
  return plane ? Access::kPlane : high - low < 16 ? Access::kWindow : Access::kSplit;
}

// Byte shuffles and multipliers that bring element k's bits to the top byte of a 16-bit lane (base-3 digits: to the low
// byte). Even elements use `even`, odd ones `odd`; the window starts at byte `base` of the block.
template <int kN>
struct Window {
  int base = 0;
  alignas(64) uint8_t even[kN] = {}, odd[kN] = {};
  alignas(64) uint16_t even_factor[kN / 2] = {}, odd_factor[kN / 2] = {};
};

template <int kN>
constexpr Window<kN> WindowOf(const Field& f, int first, int count, int block_bytes) {
  Window<kN> w;
  w.base = block_bytes - 16;  // never beyond the block
  for (int k = 0; k < count; ++k) w.base = std::min(w.base, FirstBit(f, first + k) / 8);
  for (int k = 0; k < kN; ++k) {
    const int element = first + std::min(k, count - 1), bit = FirstBit(f, element), byte = bit / 8 - w.base;
    uint8_t* index = k % 2 ? w.odd : w.even;
    index[k / 2 * 2] = uint8_t(byte);
    index[k / 2 * 2 + 1] = uint8_t(std::min(byte + 1, 15));
    (k % 2 ? w.odd_factor : w.even_factor)[k / 2] =
        uint16_t(f.kind == FieldKind::kTrits ? PowerOf3(SlotOf(f, element)) : 1 << (8 - bit % 8));
  }
  return w;
}

// Bits of the significand of a stored number, the leading one included.
constexpr int Significand(Number type) {
  switch (type) {
    case Number::kF32: return 24;
    case Number::kF16: return 11;
    case Number::kBF16: return 8;
    case Number::kUE4M3: return 4;
    case Number::kE8M0:
    case Number::kE8M0Half: return 1;
    case Number::kNone: break;
  }
  return 0;
}

// True if code * scale has at most 24 significant bits, so that it is exact in a float and a fused multiply-add gives
// the bits of a multiplication and an addition. Q4_K: 4 (code) + 11 (f16) + 6 (sub-scale) = 21. Factors change no bits.
constexpr bool ProductIsExact(const Block& b) {
  int bits = Significand(b.scale.type);
  if (b.map.kind != MapKind::kAffine || b.map.zero != 0 || b.scale.sub_zero != 0) return false;
  int code = 0, sub = 0;
  for (const Field& f : b.codes) code = std::max(code, f.kind == FieldKind::kNone ? 0 : f.up + f.bits);
  for (const Field& f : b.scale.sub) sub = std::max(sub, f.kind == FieldKind::kNone ? 0 : f.up + f.bits);
  return bits + code + sub <= 24;
}

// The kernels are compiled in one file per family; a new format falls in one by itself.
enum class Family { kNumber, kOneLevel, kTwoLevel, kTable, kGrid };
constexpr Family FamilyOf(const Block& b) {
  return b.codes[0].kind == FieldKind::kNone ? Family::kNumber
         : b.map.kind == MapKind::kGrid      ? Family::kGrid
         : b.map.kind == MapKind::kTable     ? Family::kTable
         : b.scale.sub_group != 0            ? Family::kTwoLevel
                                             : Family::kOneLevel;
}

}  // namespace edgequant
