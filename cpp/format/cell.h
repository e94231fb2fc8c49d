// Stored numbers of run-time formats: to float, and back to the nearest.
#pragma once
#include <cmath>

#include "core/half.h"
#include "format/decode.h"
#include "format/scheme.h"

namespace edgequant {

inline int CellBits(Cell c) {
  return c == Cell::kF32 ? 32 : c == Cell::kF16 || c == Cell::kBF16 ? 16 : 8;
}

inline float E4M3ToF32(uint8_t code) {
  if ((code & 0x7f) == 0x7f) return NAN;
  const float f = FloatOfBits(uint32_t(code & 0x7f) << 20) * 1.329227995784916e36f;  // * 2^120, exact
  return code & 0x80 ? -f : f;
}
// Nearest, ties to even; past 448 it is 448.
inline uint8_t E4M3FromF32(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  const uint8_t sign = uint8_t(bits >> 24 & 0x80);
  bits &= 0x7fffffff;
  if (bits >= 0x43e00000) return uint8_t(sign | 0x7e);  // 448
  if (bits < 0x3c800000) {                              // below 2^-6: 2^-9 apart
    return uint8_t(sign | uint8_t(std::nearbyint(FloatOfBits(bits) * 512.0f)));
  }
  return uint8_t(sign | uint8_t((bits + 0x7ffff + (bits >> 20 & 1) - 0x3c000000) >> 20));
}

// The nearest power of two, above and below in equal shares of the line: 0 and less are 2^-127.
inline uint8_t E8M0FromF32(float f) {
  if (!(f > 0x1p-127f)) return 0;
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  const uint32_t e = (bits + 0x400000) >> 23;
  return uint8_t(e > 254 ? 254 : e);
}

inline float ReadCell(Cell c, const uint8_t* p) {
  switch (c) {
    case Cell::kF32: return ReadNumber(Number::kF32, p);
    case Cell::kF16: return ReadNumber(Number::kF16, p);
    case Cell::kBF16: return ReadNumber(Number::kBF16, p);
    case Cell::kE8M0: return ReadNumber(Number::kE8M0, p);
    case Cell::kE4M3: return E4M3ToF32(*p);
    case Cell::kInteger: break;
  }
  return float(*p);
}
inline void WriteCell(Cell c, float v, uint8_t* p) {
  switch (c) {
    case Cell::kF32: memcpy(p, &v, 4); return;
    case Cell::kF16: {
      const uint16_t h = F16FromF32(v);
      memcpy(p, &h, 2);
      return;
    }
    case Cell::kBF16: {
      const uint16_t h = BF16FromF32(v);
      memcpy(p, &h, 2);
      return;
    }
    case Cell::kE8M0: *p = E8M0FromF32(v); return;
    case Cell::kE4M3: *p = E4M3FromF32(v); return;
    case Cell::kInteger: *p = uint8_t(v); return;
  }
}

// The largest finite number.
inline float CellLimit(Cell c) {
  switch (c) {
    case Cell::kF16: return 65504.0f;
    case Cell::kE4M3: return 448.0f;
    case Cell::kE8M0: return 0x1p127f;
    case Cell::kBF16: return 3.3895314e38f;
    default: return 3.4028235e38f;
  }
}
// v as it will be read back; finite where v is.
inline float AsStored(Cell c, float v) {
  const float limit = CellLimit(c);
  if (v > limit) v = limit;
  if (v < -limit) v = -limit;
  if (c == Cell::kF32) return v;
  if (c == Cell::kF16) return F16ToF32(F16FromF32(v));
  uint8_t bytes[4] = {};
  WriteCell(c, v, bytes);
  return ReadCell(c, bytes);
}

// A number of an 8-bit cell, some steps up or down, of the same sign and not 0.
inline float StepCell(Cell c, float v, int steps) {
  uint8_t code[4] = {};
  WriteCell(c, std::fabs(v), code);
  const int first = c == Cell::kE8M0 ? 0 : 1, last = c == Cell::kE8M0 ? 254 : 0x7e, to = int(code[0]) + steps;
  code[0] = uint8_t(to < first ? first : to > last ? last : to);
  return std::copysign(ReadCell(c, code), v);
}

}  // namespace edgequant
