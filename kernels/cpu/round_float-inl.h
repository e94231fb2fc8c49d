// Encoding as 4-bit floats (E2M1: steps of 1, 1, 1, 1, 2, 2, 4 to each side) under an 8-bit scale. Of the two scales
// that put the greatest weight of a group at the last or the last but one value, the one with less error is taken.
#if defined(EDGEQUANT_ROUND_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_FLOAT_INL_H_
#undef EDGEQUANT_ROUND_FLOAT_INL_H_
#else
#define EDGEQUANT_ROUND_FLOAT_INL_H_
#endif

#include "kernels/cpu/round_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Whether the table is E2M1 times its least positive value, the sign in the highest bit.
constexpr bool IsE2M1(const Block& b) {
  constexpr float kSteps[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  if (b.map.kind != MapKind::kTable || ShapeOf(b).codes != 16) return false;
  for (int c = 0; c < 8; ++c)
    if (b.map.values[c] != kSteps[c] * b.map.values[1] || b.map.values[c + 8] != -kSteps[c] * b.map.values[1])
      return false;
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

// v / by, rounded once.
HWY_INLINE VF Quotient(DF d, VF v, float by) {
#if EDGEQUANT_ROUND_WORDS
  const VF inverse = hn::Set(d, 1 / by), q = hn::Mul(v, inverse);
  return hn::MulAdd(hn::NegMulAdd(q, hn::Set(d, by), v), inverse, q);
#else
  return hn::Div(v, hn::Set(d, by));
#endif
}

// UE4M3, rounded to nearest, halves down: the bits of 20 on, from 2^-6. Below they are 2^-9 apart, as from there on;
// there the sum with 2^-6 has the greater bits, and above the number itself.
template <const Block& kB>
HWY_INLINE void FloatScales(DF d, VF v, int c, ByteScales& s) {
  const DI di;
  constexpr int32_t kZero = 0x3c000000 - 0x7ffff;
  const VI normal = hn::Sub(hn::BitCast(di, v), hn::Set(di, kZero));
  const VI small = hn::Sub(hn::BitCast(di, hn::Add(v, hn::Set(d, 0x1p-6f))), hn::Set(di, kZero + (8 << 20)));
  const VI code = hn::Min(hn::ShiftRight<20>(hn::Max(normal, small)), hn::Set(di, kLastUE4M3));
  hn::Store(code, di, s.byte + c);
#if EDGEQUANT_ROUND_WORDS
  ScalesOfCodes<kB>(d, code, s);
#else
  constexpr float half = kB.map.values[1] / 2;
  const VF scale =
      hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(code)), hn::Set(d, 1.329227995784916e36f));  // * 2^120, exact
  hn::Store(hn::Mul(scale, hn::Set(d, half)), d, s.half + c);
  const VF inverse = hn::Div(hn::Set(d, 1 / half), scale);
  hn::Store(hn::IfThenElseZero(hn::RebindMask(d, hn::Gt(code, hn::Zero(di))), inverse), d, s.inverse + c);
#endif
}

// The scales to choose from for groups of these greatest magnitudes; `most` grows to the greatest.
template <const Block& kB>
HWY_INLINE void ScalesFor(const float* HWY_RESTRICT greatest, Numbers& n, VF& most) {
  constexpr bool powers = kB.scale.type == Number::kE8M0Half;
  static_assert(powers ? kB.map.values[1] == 1 : kB.scale.type == Number::kUE4M3);
  const DF d;
  n.unclear = 0;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF v = hn::Load(d, greatest + c);
    most = hn::Max(most, v);
    if constexpr (powers) {
      PowerScales(d, v, 0, c, n.narrow);
      PowerScales(d, v, 1, c, n.wide);
      // Up to 28 half steps every value of the wider scale within reach is one of the narrower too.
      n.unclear |= BitsOfMask(d, hn::Gt(v, hn::Mul(hn::Load(d, n.narrow.half + c), hn::Set(d, 28.0f)))) << c;
    } else {
      constexpr float half = kB.map.values[1] / 2;
      FloatScales<kB>(d, Quotient(d, v, half * kLast), c, n.narrow);
      FloatScales<kB>(d, hn::Mul(v, hn::Set(d, 1 / (half * kLastButOne))), c, n.wide);
#if EDGEQUANT_ROUND_WORDS
      SetWordScales(d, n);
#endif
    }
  }
  Settle(&n);
}

// These of the groups at x; false if a weight is not finite.
template <const Block& kB, int S>
HWY_INLINE bool FindByteScales(const float* HWY_RESTRICT x, Numbers& n, VF& most) {
  alignas(64) float greatest[kColumns];
  if (!FindMagnitudes<S>(x, greatest)) return false;
  ScalesFor<kB>(greatest, n, most);
  return true;
}

// Whether the wider scale has less error, for each group of the set.
template <int S, bool kMayPass>
HWY_INLINE uint32_t WideOfThese(uint32_t set, const float* HWY_RESTRICT x, const Numbers& n) {
  const DF d;
  uint32_t wide = 0;
  for (uint32_t rest = set; rest != 0; rest &= rest - 1) {
    const int j = int(hwy::Num0BitsBelowLS1Bit_Nonzero32(rest));
    const float apart = hn::GetLane(hn::SumOfLanes(d, ErrorsApart<S, kMayPass>(d, x, n.narrow, n.wide, j)));
    wide |= uint32_t(apart > 0) << j;
  }
  return wide;
}

// The groups for which the wider scale has less error.
template <const Block& kB, int S>
HWY_INLINE uint32_t WideGroups(const float* HWY_RESTRICT x, const Numbers& n) {
  if constexpr (kB.scale.type == Number::kE8M0Half) return WideOfThese<S, false>(n.unclear, x, n);
#if EDGEQUANT_ROUND_WORDS
  return WideOfThese<S, true>(n.differ, x, n);  // sums in the same order as where words decide
#else
  const DF d;
  alignas(64) float apart[kColumns];
  FoldGroups(Total(), [&](int j) EDGEQUANT_UNROLLED { return ErrorsApart<S, true>(d, x, n.narrow, n.wide, j); }, apart);
  uint32_t wide = 0;
  for (int c = 0; c < kColumns; c += LanesF()) wide |= BitsOfMask(d, hn::Gt(hn::Load(d, apart + c), hn::Zero(d))) << c;
  return wide;
#endif
}

// Takes the wider scales for these groups.
HWY_INLINE void TakeByteScales(uint32_t wide, Numbers& n) {
  const DF d;
  const DI di;
  const ByteScales &a = n.narrow, &b = n.wide;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const auto other = MaskOfBits(d, wide >> c);
    hn::Store(hn::IfThenElse(other, hn::Load(d, b.inverse + c), hn::Load(d, a.inverse + c)), d, n.inverse + c);
    StoreBytes(hn::IfThenElse(hn::RebindMask(di, other), hn::Load(di, b.byte + c), hn::Load(di, a.byte + c)),
               n.scale_byte + c);
  }
  Settle(&n);
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

// kAhead: turns from this pass to the first.
template <const Block& kB, size_t kAhead>
HWY_INLINE void EmitFloats(const float* HWY_RESTRICT x, const Numbers& n, uint8_t* HWY_RESTRICT out) {
  constexpr int S = ShapeOf(kB).group;
  [[maybe_unused]] constexpr int groups = ShapeOf(kB).groups;
#if EDGEQUANT_ROUND_WORDS
  for (int q = 0; q < kColumns / 4; ++q) {
    for (int j = 4 * q; j < 4 * q + 4; ++j) PrefetchGroup<S, kAhead * kColumns * S>(x + j * S);
    EmitPart<kB>(x, n, q, out);
  }
#else
  const DF d;
  alignas(64) uint8_t codes[kColumns * S];
  for (int j = 0; j < kColumns; ++j) {
    const VF inverse = hn::Set(d, n.inverse[j]);
    PrefetchGroup<S, kAhead * kColumns * S>(x + j * S);
#pragma GCC unroll 8
    for (int i = 0; i < S; i += LanesF())
      StoreBytes(Truncated(hn::Mul(hn::LoadU(d, x + j * S + i), inverse)), codes + j * S + i);
  }
  CodesOfHalfSteps<kColumns * S>(codes);
  for (int b = 0; b < kColumns / groups; ++b, out += kB.bytes) {
    PackCodes<kB.codes[0], kB.n>(codes + b * kB.n, out);
    for (int g = 0; g < groups; ++g) out[kB.scale.byte + g] = n.scale_byte[b * groups + g];
  }
#endif
}

#if EDGEQUANT_ROUND_WORDS
// What follows from the parts of a turn: scales to choose from (false if a weight is not finite), and the choice.
template <const Block& kB>
HWY_INLINE bool FindOfParts(const Unfolded& u, Numbers& n, VF& most) {
  const DF d;
  const DI di;
  alignas(64) float greatest[kColumns];
  const VF v = FoldBlocks(d, GreatestBits(), u.most);
  hn::Store(v, d, greatest);
  ScalesFor<kB>(greatest, n, most);
  return hn::AllTrue(di, hn::Lt(hn::BitCast(di, v), hn::Set(di, 0x7f800000)));
}
HWY_INLINE void ChooseOfParts(const float* HWY_RESTRICT x, const Unfolded& u, Numbers& n) {
  const DF d;
  const VF narrow = TotalOfBlocks(d, u.narrow), wide_words = TotalOfBlocks(d, u.wide),
           square = hn::Load(d, n.words.square);
  const VF apart = hn::NegMulAdd(wide_words, square, narrow), sum = hn::MulAdd(wide_words, square, narrow);
  const VF bound = hn::MulAdd(sum, hn::Set(d, kNearFactor), hn::Set(d, kNearLeast));
  uint32_t wide = BitsOfMask(d, hn::Gt(apart, hn::Zero(d)));
  const uint32_t unclear = n.unclear | (BitsOfMask(d, hn::Lt(hn::Mul(apart, apart), bound)) & n.differ);
  if (HWY_UNLIKELY(unclear != 0)) wide = (wide & ~unclear) | WideOfThese<16, true>(unclear, x, n);
  TakeByteScales(wide, n);
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_FLOAT_INL_H_
