#include "format/reference.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "format/decode.h"

namespace edgequant::reference {
namespace {

float Half(const uint8_t* p) { return F16(uint16_t(p[0] + 256 * p[1])); }
uint32_t Word(const uint8_t* p) { return p[0] + 256u * p[1]; }
uint32_t DoubleWord(const uint8_t* p) { return Word(p) + 65536u * Word(p + 2); }
int Nibble(const uint8_t* p, int k) { return k % 2 ? p[k / 2] / 16 : p[k / 2] % 16; }
int Bit(const uint8_t* p, int k) { return p[k / 8] >> k % 8 & 1; }
int Pair(const uint8_t* p, int k) { return p[k / 4] >> 2 * (k % 4) & 3; }

const int kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
float E2M1(int code) {
  const float magnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return code <= 8 ? magnitude[code % 8] : -magnitude[code - 8];  // 8 would be -0: ggml has a table of integers
}

// Nibbles of 16 bytes: the low ones are weights 0 to 15.
int SplitNibble(const uint8_t* q, int i) { return i < 16 ? q[i] % 16 : q[i - 16] / 16; }

void Q4_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = Half(b) * float(SplitNibble(b + 2, i) - 8);
}
void Q4_1(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = Half(b) * float(SplitNibble(b + 4, i)) + Half(b + 2);
}
void Q5_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = Half(b) * float(SplitNibble(b + 6, i) + 16 * Bit(b + 2, i) - 16);
}
void Q5_1(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = Half(b) * float(SplitNibble(b + 8, i) + 16 * Bit(b + 4, i)) + Half(b + 2);
}
void Q8_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = Half(b) * float(int8_t(b[2 + i]));
}
void Q1_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 128; ++i) y[i] = Bit(b + 2, i) ? Half(b) : -Half(b);
}
void Q2_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 64; ++i) y[i] = Half(b) * float(Pair(b + 2, i) - 1);
}

// Bit pairs of 64 bytes: byte l of each 32 holds weights l, l + 32, l + 64, l + 96 of 128.
int PlanePair(const uint8_t* q, int i) { return q[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3; }

void Q2_K(const uint8_t* b, float* y) {
  const float d = Half(b + 80), dmin = Half(b + 82);
  for (int i = 0; i < 256; ++i) {
    const int s = b[i / 16];
    y[i] = d * float(s % 16) * float(PlanePair(b + 16, i)) - dmin * float(s / 16);
  }
}
void Q3_K(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int j = i / 16;
    const int low = j < 8 ? b[96 + j] % 16 : b[96 + j - 8] / 16;
    const int high = b[104 + j % 4] >> 2 * (j / 4) & 3;
    const int q = PlanePair(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4);
    y[i] = Half(b + 108) * float(low + 16 * high - 32) * float(q);
  }
}
void ScaleAndMin(const uint8_t* s, int j, int* scale, int* min) {
  if (j < 4) {
    *scale = s[j] % 64;
    *min = s[j + 4] % 64;
  } else {
    *scale = s[j + 4] % 16 + 16 * (s[j - 4] / 64);
    *min = s[j + 4] / 16 + 16 * (s[j] / 64);
  }
}
void Q45_K(const uint8_t* b, const uint8_t* high, const uint8_t* q, float* y) {
  for (int i = 0; i < 256; ++i) {
    int s, m;
    ScaleAndMin(b + 4, i / 32, &s, &m);
    const uint8_t byte = q[i / 64 * 32 + i % 32];
    int code = i / 32 % 2 ? byte / 16 : byte % 16;
    if (high) code += 16 * (high[i % 32] >> i / 32 & 1);
    y[i] = Half(b) * float(s) * float(code) - Half(b + 2) * float(m);
  }
}
void Q6_K(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, r = i % 128;
    const uint8_t low = b[part * 64 + r % 64], high = b[128 + part * 32 + r % 32];
    const int q = (r < 64 ? low % 16 : low / 16) + 16 * (high >> 2 * (r / 32) & 3) - 32;
    y[i] = Half(b + 208) * float(int8_t(b[192 + i / 16])) * float(q);
  }
}

void IQ4_NL(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = Half(b) * float(kLevels[SplitNibble(b + 2, i)]);
}
void IQ4_XS(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int j = i / 32, s = Nibble(b + 4, j) + 16 * Pair(b + 2, j) - 32;
    y[i] = Half(b) * float(s) * float(kLevels[SplitNibble(b + 8 + 16 * j, i % 32)]);
  }
}
void MXFP4(const uint8_t* b, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = std::ldexp(2 * E2M1(SplitNibble(b + 1, i)), int(b[0]) - 128);
}
void NVFP4(const uint8_t* b, float* y) {
  for (int i = 0; i < 64; ++i) {
    const int e = b[i / 16] / 8 % 16, m = b[i / 16] % 8, k = i % 16;
    const float d = b[i / 16] == 0x7f ? 0 : e == 0 ? std::ldexp(float(m), -9) : std::ldexp(1 + float(m) / 8, e - 7);
    const uint8_t byte = b[4 + i / 16 * 8 + k % 8];
    y[i] = d * E2M1(k < 8 ? byte % 16 : byte / 16);
  }
}

// Digit n of a byte that holds v * 256 / 243, rounded up, most significant digit first.
int Trit(uint8_t byte, int n) {
  const int power[5] = {1, 3, 9, 27, 81};
  return uint8_t(byte * power[n]) * 3 / 256;
}
void TQ1_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    int t;
    if (i < 160) t = Trit(b[i % 32], i / 32);
    else if (i < 240) t = Trit(b[32 + i % 16], (i - 160) / 16);
    else t = Trit(b[48 + i % 4], (i - 240) / 4);
    y[i] = Half(b + 52) * float(t - 1);
  }
}
void TQ2_0(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) y[i] = Half(b + 64) * float(PlanePair(b, i) - 1);
}

float Row(const GridTable& grid, int code, int k) {
  return float(grid.levels[grid.packed[code] / (1 << grid.bits * k) % (1 << grid.bits)]);
}
// Seven signs and the parity of their number.
float Sign7(int bits, int k) {
  if (k < 7) return bits >> k & 1 ? -1.0f : 1.0f;
  int minuses = 0;
  for (int j = 0; j < 7; ++j) minuses += bits >> j & 1;
  return minuses % 2 ? -1.0f : 1.0f;
}
float Sign8(int bits, int k) { return bits >> k & 1 ? -1.0f : 1.0f; }

void IQ2_XXS(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const uint8_t* part = b + 2 + i / 32 * 8;
    const uint32_t word = DoubleWord(part + 4);
    const int l = i / 8 % 4;
    const float d = Half(b) * (0.5f + float(word >> 28)) * 0.25f;
    y[i] = d * Row(ggml::kGridIQ2_XXS, part[l], i % 8) * Sign7(word >> 7 * l & 127, i % 8);
  }
}
void IQ2_XS(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int word = int(Word(b + 2 + i / 8 * 2));
    const float d = Half(b) * (0.5f + float(Nibble(b + 66, i / 16))) * 0.25f;
    y[i] = d * Row(ggml::kGridIQ2_XS, word % 512, i % 8) * Sign7(word / 512, i % 8);
  }
}
void IQ2_S(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int code = b[2 + i / 8] + 256 * Pair(b + 66, i / 8);
    const float d = Half(b) * (0.5f + float(Nibble(b + 74, i / 16))) * 0.25f;
    y[i] = d * Row(ggml::kGridIQ2_S, code, i % 8) * Sign8(b[34 + i / 8], i % 8);
  }
}
void IQ3_XXS(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const uint32_t word = DoubleWord(b + 66 + i / 32 * 4);
    const float d = Half(b) * (0.5f + float(word >> 28)) * 0.5f;
    y[i] = d * Row(ggml::kGridIQ3_XXS, b[2 + i / 4], i % 4) * Sign7(word >> 7 * (i / 8 % 4) & 127, i % 8);
  }
}
void IQ3_S(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int code = b[2 + i / 4] + 256 * Bit(b + 66, i / 4);
    const float d = Half(b) * float(1 + 2 * Nibble(b + 106, i / 32));
    y[i] = d * Row(ggml::kGridIQ3_S, code, i % 4) * Sign8(b[74 + i / 8], i % 8);
  }
}
void IQ1_S(const uint8_t* b, float* y) {
  for (int i = 0; i < 256; ++i) {
    const int word = int(Word(b + 34 + i / 32 * 2)), code = b[2 + i / 8] + 256 * (word >> 3 * (i / 8 % 4) & 7);
    const float d = Half(b) * float(2 * (word >> 12 & 7) + 1);
    y[i] = d * (Row(ggml::kGridIQ1_S, code, i % 8) + (word & 0x8000 ? -0.125f : 0.125f));
  }
}
void IQ1_M(const uint8_t* b, float* y) {
  const uint8_t* s = b + 48;
  const float d = F16(uint16_t(s[1] / 16 + s[3] / 16 * 16 + s[5] / 16 * 256 + s[7] / 16 * 4096));
  for (int i = 0; i < 256; ++i) {
    const int high = Nibble(b + 32, i / 8), code = b[i / 8] + 256 * (high % 8);
    const int scale = int(Word(s + i / 64 * 2)) >> 3 * (i / 16 % 4) & 7;
    y[i] = d * float(2 * scale + 1) * (Row(ggml::kGridIQ1_S, code, i % 8) + (high & 8 ? -0.125f : 0.125f));
  }
}

template <const Block& kB>
void ByDescription(const uint8_t* b, float* y) {
  for (int i = 0; i < kB.n; ++i) y[i] = Decode<kB>(b, i);
}
void ByDescription(FormatId id, const uint8_t* b, float* y) {
  switch (id) {
#define EDGEQUANT_X(id, name, block, gguf) \
  case FormatId::k##id: return ByDescription<block>(b, y);
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  }
}

}  // namespace

float F16(uint16_t bits) {
  const int e = bits >> 10 & 31, m = bits & 1023;
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  if (e == 31) return m ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  return sign * (e == 0 ? std::ldexp(float(m), -24) : std::ldexp(float(1024 + m), e - 25));
}

void DecodeBlock(FormatId id, const uint8_t* b, float* y) {
  switch (id) {
    case FormatId::kF32: memcpy(y, b, 4); return;
    case FormatId::kF16: *y = Half(b); return;
    case FormatId::kBF16: { const uint32_t bits = Word(b) << 16; memcpy(y, &bits, 4); return; }
    case FormatId::kQ4_0: return Q4_0(b, y);
    case FormatId::kQ4_1: return Q4_1(b, y);
    case FormatId::kQ5_0: return Q5_0(b, y);
    case FormatId::kQ5_1: return Q5_1(b, y);
    case FormatId::kQ8_0: return Q8_0(b, y);
    case FormatId::kQ2_K: return Q2_K(b, y);
    case FormatId::kQ3_K: return Q3_K(b, y);
    case FormatId::kQ4_K: return Q45_K(b, nullptr, b + 16, y);
    case FormatId::kQ5_K: return Q45_K(b, b + 16, b + 48, y);
    case FormatId::kQ6_K: return Q6_K(b, y);
    case FormatId::kIQ1_S: return IQ1_S(b, y);
    case FormatId::kIQ1_M: return IQ1_M(b, y);
    case FormatId::kIQ2_XXS: return IQ2_XXS(b, y);
    case FormatId::kIQ2_XS: return IQ2_XS(b, y);
    case FormatId::kIQ2_S: return IQ2_S(b, y);
    case FormatId::kIQ3_XXS: return IQ3_XXS(b, y);
    case FormatId::kIQ3_S: return IQ3_S(b, y);
    case FormatId::kIQ4_NL: return IQ4_NL(b, y);
    case FormatId::kIQ4_XS: return IQ4_XS(b, y);
    case FormatId::kTQ1_0: return TQ1_0(b, y);
    case FormatId::kTQ2_0: return TQ2_0(b, y);
    case FormatId::kMXFP4: return MXFP4(b, y);
    case FormatId::kNVFP4: return NVFP4(b, y);
    case FormatId::kQ1_0: return Q1_0(b, y);
    case FormatId::kQ2_0: return Q2_0(b, y);
    default: return ByDescription(id, b, y);
  }
}

}  // namespace edgequant::reference
