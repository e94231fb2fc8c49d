// What encoding without a search keeps of 16 groups between its passes, and conversions of vectors that it needs.
#if defined(EDGEQUANT_ROUND_NUMBERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_NUMBERS_INL_H_
#undef EDGEQUANT_ROUND_NUMBERS_INL_H_
#else
#define EDGEQUANT_ROUND_NUMBERS_INL_H_
#endif

#include <hwy/cache_control.h>

#include "kernels/cpu/round_ends-inl.h"
#include "kernels/cpu/search_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// 8-bit scales of 16 groups: of half a step between values, its inverse, and the stored byte.
struct alignas(64) ByteScales {
  float half[kColumns], inverse[kColumns];
  int32_t byte[kColumns];
};

// How 16-bit numbers compare the two.
struct alignas(64) WordScales {
  float inverse[kColumns];  // of the narrow scale, to words
  int32_t ratio[kColumns];  // of the narrow scale to the wide one in 2^-15, twice
  float square[kColumns];   // of the inverse of that ratio
};

// What the codes of 16 groups follow from, and the numbers as they are stored.
struct alignas(64) Numbers {
  float inverse[kColumns], low[kColumns];
  uint16_t scale[kColumns], offset[kColumns];
  ByteScales narrow, wide;  // to choose from
  WordScales words;
  uint32_t differ, unclear;  // bit j: in group j they are two; either may be the better one
  uint8_t scale_byte[kColumns];
};

// Lets the numbers at p be read from memory: g++ else takes each out of the vector it was stored from, at three
// operations.
HWY_INLINE void Settle(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

// Fetches the lines of a group to come, some turns before the first pass reads it: called once per group, in the midst
// of the work, which spreads the reads. x is where a pass reads that lags kLag weights behind the first. They go to the
// second cache: the first would be full of what is not needed yet.
constexpr size_t kPrefetch = 2048;  // weights
template <int S, size_t kLag>
HWY_INLINE void PrefetchGroup(const float* x) {
  for (int i = 0; i < S; i += 16) __builtin_prefetch(x + kLag + kPrefetch + i, 0, 2);
}

// v without its fraction, for |v| < 2^31. (Highway's ConvertTo also minds what lies beyond, at four operations.)
HWY_INLINE VI Truncated(VF v) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  return VI{_mm512_cvttps_epi32(v.raw)};
#elif HWY_ARCH_X86 && HWY_TARGET == HWY_AVX2
  return VI{_mm256_cvttps_epi32(v.raw)};
#elif HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  return VI{_mm_cvttps_epi32(v.raw)};
#else
  return hn::ConvertTo(DI(), v);
#endif
}

// A bit per lane, and back.
HWY_INLINE uint32_t BitsOfMask(DF d, hn::Mask<DF> mask) {
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(d, mask, bytes);
  return (bytes[0] | uint32_t(bytes[1]) << 8) & ((1u << LanesF()) - 1);
}
HWY_INLINE hn::Mask<DF> MaskOfBits(DF d, uint32_t bits) {
  const uint8_t bytes[8] = {uint8_t(bits), uint8_t(bits >> 8)};
  return hn::LoadMaskBits(d, bytes);
}

// The lowest byte of each number.
HWY_INLINE void StoreBytes(VI v, uint8_t* HWY_RESTRICT to) {
  const hn::Rebind<uint8_t, DF> d8;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
  alignas(64) static constexpr uint8_t kLowest[64] = {0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60};
  const hn::Full512<uint8_t> d512;
  const hn::Vec<hn::Full512<uint8_t>> bytes{_mm512_permutexvar_epi8(hn::Load(d512, kLowest).raw, v.raw)};
  hn::StoreU(hn::LowerHalf(hn::LowerHalf(bytes)), d8, to);
#else
  const hn::RebindToUnsigned<DI> du;
  const auto bits = hn::BitCast(du, v);
  // x86 takes the lowest byte anyway; others may saturate
  constexpr bool takes_byte = HWY_ARCH_X86 && HWY_TARGET <= HWY_SSE4;
  hn::StoreU(hn::U8FromU32(takes_byte ? bits : hn::And(bits, hn::Set(du, 255u))), d8, to);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_NUMBERS_INL_H_
