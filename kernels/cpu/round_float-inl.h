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
constexpr float kLastStep = 12, kLastButOne = 8;

// The nearest value, both in steps: the sum with a number of 2^22 times u's size, at least 2^23, has no smaller digits.
HWY_INLINE VF NearestE2M1(DF d, VF u) {
  const DI di;
  const VI size = hn::Max(hn::And(hn::BitCast(di, u), hn::Set(di, 0x7f800000)), hn::Set(di, 0x40000000));
  const VF large = hn::BitCast(d, hn::Add(size, hn::Set(di, (22 << 23) + (1 << 22))));
  const VF near = hn::Sub(hn::Add(u, large), large);
  return hn::Max(hn::Min(near, hn::Set(d, kLastStep)), hn::Set(d, -kLastStep));
}

// The squared errors of one group under scale a less those under b, lane by lane; scales are of a step.
template <int S>
HWY_INLINE VF ErrorsApart(DF d, const float* HWY_RESTRICT x, VF a, VF inverse_a, VF b, VF inverse_b) {
  VF sum = hn::Zero(d);
#pragma GCC unroll 8
  for (int i = 0; i < S; i += LanesF()) {
    const VF v = hn::LoadU(d, x + i);
    const VF rest_a = hn::NegMulAdd(NearestE2M1(d, hn::Mul(v, inverse_a)), a, v);
    const VF rest_b = hn::NegMulAdd(NearestE2M1(d, hn::Mul(v, inverse_b)), b, v);
    sum = hn::NegMulAdd(rest_b, rest_b, hn::MulAdd(rest_a, rest_a, sum));
  }
  return sum;
}

// Scales of a step, their inverses, and the stored bytes, of 16 groups.
struct alignas(64) ByteScales {
  float step[kColumns], inverse[kColumns];
  int32_t byte[kColumns];
};

// 2^(e - 128), of the greatest weight the last power of two or, with one more, the one behind it.
HWY_INLINE void PowerScales(DF d, VF most, int more, int c, ByteScales& s) {
  const DI di;
  const VI e = hn::Max(hn::Sub(hn::ShiftRight<23>(hn::BitCast(di, most)), hn::Set(di, 2 - more)), hn::Set(di, 2));
  hn::Store(e, di, s.byte + c);
  hn::Store(hn::BitCast(d, hn::ShiftLeft<23>(hn::Sub(e, hn::Set(di, 1)))), d, s.step + c);
  hn::Store(hn::BitCast(d, hn::ShiftLeft<23>(hn::Sub(hn::Set(di, 255), e))), d, s.inverse + c);
}

// UE4M3, rounded to nearest, halves down: the bits of 20 on, from 2^-6. Below they are 2^-9 apart, as from there on.
HWY_INLINE void FloatScales(DF d, VF v, float step, int c, ByteScales& s) {
  const DI di;
  const auto rounded = [&](VF f) HWY_ATTR {
    return hn::ShiftRight<20>(hn::Add(hn::BitCast(di, f), hn::Set(di, 0x7ffff - 0x3c000000)));
  };
  const VF least = hn::Set(d, 0x1p-6f);
  const VI normal = rounded(v), small = hn::Sub(rounded(hn::Add(v, least)), hn::Set(di, 8));
  const VI code = hn::Min(hn::IfThenElse(hn::RebindMask(di, hn::Lt(v, least)), small, normal), hn::Set(di, kLastUE4M3));
  const VF scale = hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(code)), hn::Set(d, 1.329227995784916e36f));  // * 2^120, exact
  hn::Store(code, di, s.byte + c);
  hn::Store(hn::Mul(scale, hn::Set(d, step)), d, s.step + c);
  const VF inverse = hn::Div(hn::Set(d, 1 / step), scale);
  hn::Store(hn::IfThenElseZero(hn::RebindMask(d, hn::Gt(code, hn::Zero(di))), inverse), d, s.inverse + c);
}

// Numbers of the groups at x: inverse is of half a step.
template <const Block& kB, int S>
HWY_INLINE bool FloatNumbers(const float* HWY_RESTRICT x, Numbers& n, VF& most) {
  constexpr bool powers = kB.scale.type == Number::kE8M0Half;
  static_assert(powers ? kB.map.values[1] == 1 : kB.scale.type == Number::kUE4M3);
  const DF d;
  alignas(64) float greatest[kColumns], apart[kColumns];
  ByteScales a, b;
  if (!FindMagnitudes<S>(x, greatest)) return false;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF v = hn::Load(d, greatest + c);
    most = hn::Max(most, v);
    if constexpr (powers) {
      PowerScales(d, v, 0, c, a);
      PowerScales(d, v, 1, c, b);
    } else {
      constexpr float step = kB.map.values[1];
      FloatScales(d, hn::Div(v, hn::Set(d, step * kLastStep)), step, c, a);
      FloatScales(d, hn::Div(v, hn::Set(d, step * kLastButOne)), step, c, b);
    }
  }
  const auto errors = [&](int j) EDGEQUANT_UNROLLED {
    return ErrorsApart<S>(d, x + j * S, hn::Set(d, a.step[j]), hn::Set(d, a.inverse[j]), hn::Set(d, b.step[j]), hn::Set(d, b.inverse[j]));
  };
  if constexpr (powers) {
    // Up to 14 steps every value of the wider scale within reach is one of the narrower too.
    for (int j = 0; j < kColumns; ++j)
      apart[j] = greatest[j] > 14 * a.step[j] ? hn::GetLane(hn::SumOfLanes(d, errors(j))) : 0;
  } else {
    FoldGroups(Total(), errors, apart);
  }
  for (int j = 0; j < kColumns; ++j) {
    const bool other = apart[j] > 0;
    n.inverse[j] = 2 * (other ? b : a).inverse[j];
    n.scale[j] = uint16_t((other ? b : a).byte[j]);
  }
  return true;
}

// The code of k half steps to each side, from the halves between the values.
struct HalfSteps {
  alignas(16) uint8_t code[16] = {};
  int8_t last = 0;  // the only limit beyond the table
  constexpr HalfSteps() {
    constexpr int kSteps[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    for (int k = 0; k < 16; ++k)
      for (int c = 1; c < 8; ++c)
        if (kSteps[c - 1] + kSteps[c] <= k) code[k] = uint8_t(c);
    last = kSteps[6] + kSteps[7];
  }
};

// Counts of half steps, as signed bytes, to codes.
template <int N>
HWY_INLINE void CodesOfHalfSteps(uint8_t* HWY_RESTRICT bytes) {
  static constexpr HalfSteps t;
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
#pragma GCC unroll 8
    for (int i = j * S; i < (j + 1) * S; i += LanesF())
      StoreBytes(Truncated(hn::Mul(hn::LoadU(d, x + i), inverse)), codes + i);
  }
  CodesOfHalfSteps<kColumns * S>(codes);
  for (int b = 0; b < kColumns / groups; ++b, out += kB.bytes) {
    PackCodes<kB.codes[0], kB.n>(codes + b * kB.n, out);
    for (int g = 0; g < groups; ++g) out[kB.scale.byte + g] = uint8_t(n.scale[b * groups + g]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_FLOAT_INL_H_
