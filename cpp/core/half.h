// float to the 16-bit types, rounded to nearest even. (The other direction is in format/decode.h, which devices share.)
#pragma once
#include <stdint.h>
#include <string.h>

namespace edgequant {

inline uint16_t BF16FromF32(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);  // NaN stays NaN
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t F16FromF32(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return uint16_t(sign | 0x7e00 | (bits >> 13 & 0x1ff));  // NaN stays NaN
  if (bits >= 0x477ff000) return uint16_t(sign | 0x7c00);                       // 65520 and above round to infinity
  if (bits < 0x38800000) {  // below 2^-14: adding 0.5 puts the subnormal's last place at the last place of the float
    float sum;
    memcpy(&sum, &bits, sizeof sum);
    sum += 0.5f;
    memcpy(&bits, &sum, sizeof bits);
    return uint16_t(sign | (bits - 0x3f000000));
  }
  return uint16_t(sign | ((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13));
}

}  // namespace edgequant
