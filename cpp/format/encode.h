// Packs codes and scales into a block of any described format: the inverse of decode.h. Host code.
#pragma once
#include <string.h>

#include "core/half.h"
#include "format/decode.h"
#include "format/shape.h"

namespace edgequant {

// ---- Numbers

inline uint32_t BitsOfFloat(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

// The 8-bit scale types are ordered, so the nearest one is found by bisection over their codes.
constexpr int kLastE8M0 = 254, kLastUE4M3 = 126;
inline float FloatOfByte(Number type, int code) {
  const uint8_t bytes[4] = {uint8_t(code)};
  return ReadNumber(type, bytes);
}
inline int NearestByte(Number type, float v) {
  int low = 0, high = type == Number::kUE4M3 ? kLastUE4M3 : kLastE8M0;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (FloatOfByte(type, middle) <= v ? low : high) = middle;
  }
  return v - FloatOfByte(type, low) <= FloatOfByte(type, high) - v ? low : high;
}

// Writes the representable number nearest to v.
inline void WriteNumber(Number type, uint8_t* p, float v) {
  switch (type) {
    case Number::kF32: {
      const uint32_t bits = BitsOfFloat(v);
      memcpy(p, &bits, 4);
      return;
    }
    case Number::kF16:
    case Number::kBF16: {
      const uint16_t bits = type == Number::kF16 ? F16FromF32(v) : BF16FromF32(v);
      p[0] = uint8_t(bits);
      p[1] = uint8_t(bits >> 8);
      return;
    }
    case Number::kE8M0:
    case Number::kE8M0Half:
    case Number::kUE4M3: *p = uint8_t(NearestByte(type, v)); return;
    case Number::kNone: return;
  }
}

// ---- Integers

// ORs the integer of element i into a block that holds zeros there. Not for base-3 digits.
EDGEQUANT_INLINE void WriteField(const Field& f, uint8_t* block, int i, int v) {
  if (!Covers(f, i)) return;
  const int at = FirstBit(f, i);
  const unsigned bits = (unsigned(v) >> f.up & ((1u << f.bits) - 1)) << at % 8;
  block[at / 8] = uint8_t(block[at / 8] | bits);
  if (MayStraddle(f) && at % 8 + f.bits > 8) block[at / 8 + 1] = uint8_t(block[at / 8 + 1] | bits >> 8);
}

// All n codes of one field. A byte of base-3 digits holds v = sum of digit * 3^(4 - slot) as ceil(v * 256 / 243).
template <Field kF>
inline void WriteCodes(const uint8_t* codes, int n, uint8_t* block) {
  static constexpr Field f = kF;
  if constexpr (f.kind == FieldKind::kBits) {
    for (int i = 0; i < n; ++i) WriteField(f, block, i, codes[i]);
  } else if constexpr (f.kind == FieldKind::kTrits) {
    const int end = n < f.end ? n : f.end;
    for (int i = f.begin; i < end; i += f.lanes * f.slots)
      for (int lane = 0; lane < f.lanes; ++lane) {
        int v = 0;
        for (int slot = 0; slot < f.slots; ++slot) v += codes[i + slot * f.lanes + lane] * PowerOf3(4 - slot);
        block[FirstBit(f, i + lane) / 8] = uint8_t((v * 256 + 242) / 243);
      }
  }
}

// ---- Levels

// The numbers of one level (value[g], one per group or per block) and, for two levels, its integers as they decode:
// integer[j] for sub-group j.
template <Level kL>
inline void WriteLevel(const float* value, const int* integer, int n, uint8_t* block) {
  static constexpr Level level = kL;
  const int numbers = level.type == Number::kNone ? 0 : level.group ? n / level.group : 1;
  for (int g = 0; g < numbers; ++g) WriteNumber(level.type, block + level.byte + g * SizeOf(level.type), value[g]);
  if constexpr (level.sub_group != 0)
    for (int j = 0; j < n / level.sub_group; ++j) {
      const int stored = integer[j] + int(level.sub_zero);
      WriteField(level.sub[0], block, j, stored);
      WriteField(level.sub[1], block, j, stored);
    }
}

// A whole block. Levels with a factor take the number that is stored, so the factor is the caller's.
template <const Block& kB>
inline void Encode(const uint8_t* codes, const float* scale, const int* scale_integer, const float* offset,
                   const int* offset_integer, uint8_t* block) {
  memset(block, 0, size_t(kB.bytes));
  WriteCodes<kB.codes[0]>(codes, kB.n, block);
  WriteCodes<kB.codes[1]>(codes, kB.n, block);
  WriteCodes<kB.codes[2]>(codes, kB.n, block);
  WriteLevel<kB.scale>(scale, scale_integer, kB.n, block);
  WriteLevel<kB.offset>(offset, offset_integer, kB.n, block);
}

}  // namespace edgequant
