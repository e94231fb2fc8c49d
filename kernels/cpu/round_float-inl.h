// Encoding as 4-bit floats (E2M1: steps of 1, 1, 1, 1, 2, 2, 4 to each side) under an 8-bit scale. Of the two scales that
// put the greatest weight of a group at the last or the last but one value, the one with less error is taken.
#if defined(EDGEQUANT_ROUND_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_FLOAT_INL_H_
#undef EDGEQUANT_ROUND_FLOAT_INL_H_
#else
#define EDGEQUANT_ROUND_FLOAT_INL_H_
#endif

#include "kernels/cpu/round_numbers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Whether the table is E2M1 times its least positive value, the sign in the highest bit.
constexpr bool IsE2M1(const Block& b) {
  constexpr float kSteps[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  if (b.map.kind != MapKind::kTable || ShapeOf(b).codes != 16) return false;
  for (int c = 0; c < 8; ++c)
    if (b.map.values[c] != kSteps[c] * b.map.values[1] || b.map.values[c + 8] != -kSteps[c] * b.map.values[1]) return false;
  return true;
}
constexpr float kLast = 24, kLastButOne = 16;  // in half steps

// The code of k half steps, and the half steps of that value: limits between values lie at whole numbers of half steps.
struct HalfSteps {
  alignas(64) float value[32] = {};
  alignas(16) uint8_t code[16] = {};
  int8_t last = 0;  // the only limit beyond `code`
  constexpr HalfSteps() {
    constexpr int kSteps[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    last = kSteps[6] + kSteps[7];
    for (int k = 0; k < 32; ++k)
      for (int c = 1; c < 8; ++c)
        if (kSteps[c - 1] + kSteps[c] <= k) {
          if (k < 16) code[k] = uint8_t(c);
          value[k] = float(2 * kSteps[c]);
        }
  }
};
inline constexpr HalfSteps kHalfSteps;

// The value nearest to u, both in half steps; u is from 0 to below 32.
HWY_INLINE VF NearestE2M1(DF d, VF u) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  const VF low = hn::Load(d, kHalfSteps.value), high = hn::Load(d, kHalfSteps.value + 16);
  return VF{_mm512_permutex2var_ps(low.raw, Truncated(u).raw, high.raw)};
#else
  // The sum with a number of 2^22 times u's size, at least 2^24, has no smaller digits.
  const DI di;
  const VI size = hn::Max(hn::And(hn::BitCast(di, u), hn::Set(di, 0x7f800000)), hn::Set(di, 0x40800000));
  const VF large = hn::BitCast(d, hn::Add(size, hn::Set(di, 22 << 23)));
  return hn::Min(hn::Sub(hn::Add(u, large), large), hn::Set(d, kLast));
#endif
}

// The squared errors of group j under scales a less those under b, lane by lane.
template <int S, bool kMayPass>
HWY_INLINE VF ErrorsApart(DF d, const float* HWY_RESTRICT x, const ByteScales& a, const ByteScales& b, int j) {
  VF sum = hn::Zero(d);
#pragma GCC unroll 8
  for (int i = 0; i < S; i += LanesF()) {
    const VF v = hn::Abs(hn::LoadU(d, x + j * S + i));
    VF u = hn::Mul(v, hn::Set(d, a.inverse[j]));
    if constexpr (kMayPass) u = hn::Min(u, hn::Set(d, 31.0f));
    const VF rest_a = hn::NegMulAdd(NearestE2M1(d, u), hn::Set(d, a.half[j]), v);
    const VF rest_b = hn::NegMulAdd(NearestE2M1(d, hn::Mul(v, hn::Set(d, b.inverse[j]))), hn::Set(d, b.half[j]), v);
    sum = hn::NegMulAdd(rest_b, rest_b, hn::MulAdd(rest_a, rest_a, sum));
  }
  return sum;
}

// 2^(e - 128), for which the greatest weight lies between 16 and 32 half steps; with one more between 8 and 16.
HWY_INLINE void PowerScales(DF d, VF most, int more, int c, ByteScales& s) {
  const DI di;
  const VI e = hn::Max(hn::Sub(hn::ShiftRight<23>(hn::BitCast(di, most)), hn::Set(di, 2 - more)), hn::Set(di, 3));
  hn::Store(e, di, s.byte + c);
  hn::Store(hn::BitCast(d, hn::ShiftLeft<23>(hn::Sub(e, hn::Set(di, 2)))), d, s.half + c);
  hn::Store(hn::BitCast(d, hn::ShiftLeft<23>(hn::Sub(hn::Set(di, 256), e))), d, s.inverse + c);
}

// UE4M3, rounded to nearest, halves down: the bits of 20 on, from 2^-6. Below they are 2^-9 apart, as from there on.
HWY_INLINE void FloatScales(DF d, VF v, float half, int c, ByteScales& s) {
  const DI di;
  const auto rounded = [&](VF f) HWY_ATTR {
    return hn::ShiftRight<20>(hn::Add(hn::BitCast(di, f), hn::Set(di, 0x7ffff - 0x3c000000)));
  };
  const VF least = hn::Set(d, 0x1p-6f);
  const VI normal = rounded(v), small = hn::Sub(rounded(hn::Add(v, least)), hn::Set(di, 8));
  const VI code = hn::Min(hn::IfThenElse(hn::RebindMask(di, hn::Lt(v, least)), small, normal), hn::Set(di, kLastUE4M3));
  const VF scale = hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(code)), hn::Set(d, 1.329227995784916e36f));  // * 2^120, exact
  hn::Store(code, di, s.byte + c);
  hn::Store(hn::Mul(scale, hn::Set(d, half)), d, s.half + c);
  const VF inverse = hn::Div(hn::Set(d, 1 / half), scale);
  hn::Store(hn::IfThenElseZero(hn::RebindMask(d, hn::Gt(code, hn::Zero(di))), inverse), d, s.inverse + c);
}

// The scales of the groups at x to choose from; false if a weight is not finite. `most` grows to the greatest magnitude.
template <const Block& kB, int S>
HWY_INLINE bool FindByteScales(const float* HWY_RESTRICT x, Numbers& n, VF& most) {
  constexpr bool powers = kB.scale.type == Number::kE8M0Half;
  static_assert(powers ? kB.map.values[1] == 1 : kB.scale.type == Number::kUE4M3);
  const DF d;
  alignas(64) float greatest[kColumns];
  if (!FindMagnitudes<S>(x, greatest)) return false;
  n.unclear = 0;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF v = hn::Load(d, greatest + c);
    most = hn::Max(most, v);
    if constexpr (powers) {
      PowerScales(d, v, 0, c, n.narrow);
      PowerScales(d, v, 1, c, n.wide);
      // Up to 28 half steps every value of the wider scale within reach is one of the narrower too.
      uint8_t bits[8];
      hn::StoreMaskBits(d, hn::Gt(v, hn::Mul(hn::Load(d, n.narrow.half + c), hn::Set(d, 28.0f))), bits);
      for (int k = 0; k < LanesF(); k += 8) n.unclear |= uint32_t(bits[k / 8] & ((1 << HWY_MIN(LanesF(), 8)) - 1)) << (c + k);
    } else {
      constexpr float half = kB.map.values[1] / 2;
      FloatScales(d, hn::Div(v, hn::Set(d, half * kLast)), half, c, n.narrow);
      FloatScales(d, hn::Div(v, hn::Set(d, half * kLastButOne)), half, c, n.wide);
    }
  }
  Settle(&n);
  return true;
}

// Takes the scales with less error.
template <const Block& kB, int S>
HWY_INLINE void ChooseByteScales(const float* HWY_RESTRICT x, Numbers& n) {
  const DF d;
  const DI di;
  const ByteScales &a = n.narrow, &b = n.wide;
  if constexpr (kB.scale.type == Number::kE8M0Half) {
    for (int c = 0; c < kColumns; c += LanesF()) {
      hn::Store(hn::Load(d, a.inverse + c), d, n.inverse + c);
      StoreBytes(hn::Load(di, a.byte + c), n.scale_byte + c);
    }
    for (uint32_t rest = n.unclear; rest != 0; rest &= rest - 1) {
      const int j = int(hwy::Num0BitsBelowLS1Bit_Nonzero32(rest));
      const bool other = hn::GetLane(hn::SumOfLanes(d, ErrorsApart<S, false>(d, x, a, b, j))) > 0;
      n.inverse[j] = (other ? b : a).inverse[j];
      n.scale_byte[j] = uint8_t((other ? b : a).byte[j]);
    }
    return;
  }
  alignas(64) float apart[kColumns];
  FoldGroups(Total(), [&](int j) EDGEQUANT_UNROLLED { return ErrorsApart<S, true>(d, x, a, b, j); }, apart);
  for (int c = 0; c < kColumns; c += LanesF()) {
    const auto other = hn::Gt(hn::Load(d, apart + c), hn::Zero(d));
    hn::Store(hn::IfThenElse(other, hn::Load(d, b.inverse + c), hn::Load(d, a.inverse + c)), d, n.inverse + c);
    StoreBytes(hn::IfThenElse(hn::RebindMask(di, other), hn::Load(di, b.byte + c), hn::Load(di, a.byte + c)), n.scale_byte + c);
  }
}

// Counts of half steps, as signed bytes, to codes.
template <int N>
HWY_INLINE void CodesOfHalfSteps(uint8_t* HWY_RESTRICT bytes) {
  const HalfSteps& t = kHalfSteps;
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < N; ++i) {
    const int k = int8_t(bytes[i]), m = k < 0 ? -k : k;
    bytes[i] = uint8_t((k < 0 ? 8 : 0) + t.code[HWY_MIN(m, 15)] + (m >= t.last));
  }
#else
  const hn::CappedTag<uint8_t, 64> d;
  const hn::RebindToSigned<decltype(d)> ds;
  const auto table = hn::LoadDup128(d, t.code);
  for (int i = 0; i < N; i += int(hn::Lanes(d))) {
    const auto v = hn::Load(d, bytes + i);
    const auto m = hn::Abs(hn::BitCast(ds, v));
    const auto code = hn::TableLookupBytes(table, hn::BitCast(d, hn::Min(m, hn::Set(ds, int8_t{15}))));
    const auto past = hn::BitCast(d, hn::VecFromMask(ds, hn::Gt(m, hn::Set(ds, int8_t(t.last - 1)))));
    const auto sign = ShiftBytes<-4>(d, hn::And(v, hn::Set(d, uint8_t{128})));
    hn::Store(hn::Or(hn::Sub(code, past), sign), d, bytes + i);
  }
#endif
}

template <const Block& kB>
HWY_INLINE void EmitFloats(const float* HWY_RESTRICT x, const Numbers& n, uint8_t* HWY_RESTRICT out) {
  constexpr int S = ShapeOf(kB).group, groups = ShapeOf(kB).groups;
  const DF d;
  alignas(64) uint8_t codes[kColumns * S];
  for (int j = 0; j < kColumns; ++j) {
    const VF inverse = hn::Set(d, n.inverse[j]);
    PrefetchGroup<S>(x + j * S);
#pragma GCC unroll 8
    for (int i = 0; i < S; i += LanesF())
      StoreBytes(Truncated(hn::Mul(hn::LoadU(d, x + j * S + i), inverse)), codes + j * S + i);
  }
  CodesOfHalfSteps<kColumns * S>(codes);
  for (int b = 0; b < kColumns / groups; ++b, out += kB.bytes) {
    PackCodes<kB.codes[0], kB.n>(codes + b * kB.n, out);
    for (int g = 0; g < groups; ++g) out[kB.scale.byte + g] = n.scale_byte[b * groups + g];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_FLOAT_INL_H_
