// Where the reference encoders of the ecosystems put the scales of 16 groups side by side, and how they round to codes.
// Each step rounds as theirs do.
#if defined(EDGEQUANT_SCHEME_RULE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_RULE_INL_H_
#undef EDGEQUANT_SCHEME_RULE_INL_H_
#else
#define EDGEQUANT_SCHEME_RULE_INL_H_
#endif

#include <math.h>
#include <string.h>

#include <type_traits>

#include "kernels/cpu/cells-inl.h"
#include "kernels/cpu/scheme_search.h"
#include "kernels/cpu/scheme_values-inl.h"

// Whether numbers that are put in fewer bits, four vectors at a time, end at the least and the greatest.
#undef EDGEQUANT_BYTES_SATURATE
#define EDGEQUANT_BYTES_SATURATE (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3)

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

using DU = hn::RebindToUnsigned<DF>;
using VU = hn::Vec<DU>;

struct alignas(64) Ranges { float low[kColumns], high[kColumns], extreme[kColumns], mean_magnitude[kColumns]; };

// Scales and shifts as stored; weights less `minus` are divided by `by`, then `plus` is added.
struct alignas(64) RuleColumns {
  float scale[kColumns], shift[kColumns], by[kColumns], inverse[kColumns], minus[kColumns], plus[kColumns];
  bool moderate;  // no number that is divided by is so small or large that parts of a quotient could vanish
};

HWY_INLINE VF Invert(DF d, VF v) {  // 0 for what is too small; Inverse gives up sooner
  const VF one = hn::Set(d, 1.0f);
  const auto ok = hn::Gt(hn::Abs(v), hn::Set(d, 1e-37f));
  return hn::IfThenElseZero(ok, hn::Div(one, hn::IfThenElse(ok, v, one)));
}

// ---- The range of groups

// The maxima of every kLaneParts-th lane, and all that 16 groups have of them put together.
#if HWY_TARGET == HWY_SCALAR
constexpr size_t kLaneParts = 1;
template <class D, class T>
HWY_INLINE void StoreParts(D d, hn::Vec<D> v, T* HWY_RESTRICT out) { hn::Store(v, d, out); }
template <class D, class T>
HWY_INLINE hn::Vec<D> LargestOfParts(D d, const T* HWY_RESTRICT parts) { return hn::Load(d, parts); }
#else
constexpr size_t kLaneParts = 4;
template <class D, class T>
HWY_INLINE void StoreParts(D d, hn::Vec<D> v, T* HWY_RESTRICT out) {
  if constexpr (hn::MaxLanes(D()) > kLaneParts) {
    const hn::Half<D> dh;
    StoreParts(dh, hn::Max(hn::LowerHalf(dh, v), hn::UpperHalf(dh, v)), out);
  } else {
    hn::Store(v, d, out);
  }
}
template <class D, class T>
HWY_INLINE hn::Vec<D> LargestOfParts(D d, const T* HWY_RESTRICT parts) {
  constexpr size_t lanes = hn::MaxLanes(D()), blocks = lanes / kLaneParts;
  const hn::Repartition<uint64_t, D> d64;
  const auto two = [&](size_t k) HWY_ATTR {
    const auto a = hn::Load(d, parts + k * lanes), b = hn::Load(d, parts + (k + 1) * lanes);
    return hn::BitCast(d64, hn::Max(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto a = two(0), b = two(2);
  const auto low = hn::InterleaveLower(d64, a, b), high = hn::InterleaveUpper(d64, a, b);
  const auto most = hn::Max(hn::BitCast(d, low), hn::BitCast(d, high));
  if constexpr (blocks == 1) return most;
  alignas(64) int32_t order[lanes];  // lane k of block j has the group of block j of vector k
  for (size_t g = 0; g < lanes; ++g) order[g] = int32_t(g % blocks * kLaneParts + g / blocks);
  return hn::TableLookupLanes(most, hn::SetTableIndices(d, order));
}
#endif

HWY_INLINE uint32_t BitsOf(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}

// The bits of floats, as signed numbers for the highest weight and as unsigned ones for the lowest: so NaN is found,
// too. In groups of one sign both are that of largest magnitude.
struct Extremes { VI high; VU low; };
HWY_INLINE Extremes ExtremesOf(VF v) { return {hn::BitCast(DI(), v), hn::BitCast(DU(), v)}; }
HWY_INLINE Extremes ExtremesOf(const Extremes& a, const Extremes& b) {
  return {hn::Max(a.high, b.high), hn::Max(a.low, b.low)};
}
template <size_t kVectors>
HWY_INLINE Extremes ExtremesOfVectors(const float* HWY_RESTRICT x) {
  if constexpr (kVectors == 1) {
    return ExtremesOf(hn::LoadU(DF(), x));
  } else {
    constexpr size_t half = kVectors / 2;
    return ExtremesOf(ExtremesOfVectors<half>(x), ExtremesOfVectors<half>(x + half * size_t(LanesF())));
  }
}
// n is a multiple of as many vectors; or else of no vectors.
template <size_t kVectors>
HWY_INLINE Extremes ExtremesOfGroup(const float* HWY_RESTRICT x, size_t n) {
  const size_t lanes = size_t(LanesF());
  if constexpr (kVectors > 0) {
    Extremes e = ExtremesOfVectors<kVectors>(x);
    for (size_t i = kVectors * lanes; i < n; i += kVectors * lanes)
      e = ExtremesOf(e, ExtremesOfVectors<kVectors>(x + i));
    return e;
  } else {  // the last weights are looked at again
    alignas(64) float few[kColumns];
    for (size_t k = 0; k < lanes; ++k) few[k] = x[HWY_MIN(k, n - 1)];
    Extremes e = ExtremesOfVectors<1>(few);
    for (size_t i = lanes; i < n; i += lanes) e = ExtremesOf(e, ExtremesOfVectors<1>(x + HWY_MIN(i, n - lanes)));
    return e;
  }
}

// Of `count` groups of n weights that follow one another, in parts.
struct alignas(64) RangeParts { int32_t high[kColumns * kLaneParts]; uint32_t low[kColumns * kLaneParts]; };
HWY_INLINE void FindParts(const float* HWY_RESTRICT x, size_t n, size_t count, RangeParts& parts) {
  const DI di;
  const DU du;
  const size_t lanes = size_t(LanesF());
  const auto find = [&](auto vectors) HWY_ATTR {
    for (size_t g = 0; g < count; ++g) {
      const Extremes e = ExtremesOfGroup<decltype(vectors)::value>(x + g * n, n);
      StoreParts(di, e.high, parts.high + g * kLaneParts);
      StoreParts(du, e.low, parts.low + g * kLaneParts);
    }
  };
  if (n % (4 * lanes) == 0) find(std::integral_constant<size_t, 4>());
  else if (n % (2 * lanes) == 0) find(std::integral_constant<size_t, 2>());
  else find(std::integral_constant<size_t, 0>());
  for (size_t k = count * kLaneParts; k < kColumns * kLaneParts; ++k)  // no group needs a second look
    parts.high[k] = 1, parts.low[k] = 0x80000002;
}

// The ranges of the same groups, without the means; returns the bits of the largest magnitude, as LargestMagnitude. In
// groups of one sign the extremes are found again. Some time after FindParts: its stores are read in larger pieces.
HWY_INLINE uint32_t RangesOf(const float* HWY_RESTRICT x, size_t n, size_t count, const RangeParts& parts, Ranges& r) {
  const DF d;
  const DI di;
  const DU du;
  const size_t lanes = size_t(LanesF());
  uint32_t again = 0;
  VI most = hn::Zero(di);
  for (size_t c = 0; c < size_t(kColumns); c += lanes) {
    const VI top = LargestOfParts(di, parts.high + c * kLaneParts);
    const VU bottom = LargestOfParts(du, parts.low + c * kLaneParts);
    const VF high = hn::BitCast(d, top), low = hn::BitCast(d, bottom), positive_low = hn::Neg(low);
    const VI magnitude = hn::Set(di, INT32_MAX);
    most = hn::Max(most, hn::Max(hn::And(top, magnitude), hn::And(hn::BitCast(di, bottom), magnitude)));
    hn::Store(high, d, r.high + c);
    hn::Store(low, d, r.low + c);
    hn::Store(hn::IfThenElse(hn::Gt(high, positive_low), high, low), d, r.extreme + c);
    const auto one_sign = hn::Lt(hn::Or(top, hn::BitCast(di, positive_low)), hn::Zero(di));
    if (!hn::AllFalse(d, hn::Or(hn::RebindMask(d, one_sign), hn::Eq(high, positive_low)))) again |= 1u << c;
  }
  if (HWY_UNLIKELY(again != 0))
    for (size_t g = 0; g < count; ++g) {
      const float* const group = x + g * n;
      if (BitsOf(r.high[g]) >> 31 || !(BitsOf(r.low[g]) >> 31)) {
        float low = group[0], high = group[0];
        for (size_t i = 1; i < n; ++i) low = HWY_MIN(low, group[i]), high = HWY_MAX(high, group[i]);
        r.low[g] = low, r.high[g] = high;
        r.extreme[g] = high > -low ? high : low;
      }
      if (r.high[g] == -r.low[g])  // of two with opposite signs the first
        for (size_t i = 0; i < n; ++i)
          if (group[i] == r.high[g] || group[i] == r.low[g]) {
            r.extreme[g] = group[i];
            break;
          }
    }
  return uint32_t(hn::GetLane(hn::MaxOfLanes(di, most)));
}

// ---- The rules

HWY_INLINE VF HalfAway(DF d, VF v) { return hn::Trunc(hn::Add(v, hn::CopySign(hn::Set(d, 0.49999997f), v))); }
HWY_INLINE VF RoundTo(DF d, Rounding r, VF v) {
  return r == Rounding::kHalfEven   ? hn::Round(v)
         : r == Rounding::kHalfAway ? HalfAway(d, v)
                                    : hn::Floor(hn::Add(v, hn::Set(d, 0.5f)));
}

HWY_INLINE VF StoredScale(DF d, const SchemeSearch& s, VF scale) {
  if (!s.scheme->scaled()) return hn::Set(d, 1.0f);
  if (!s.scheme->negative_scale) scale = hn::Max(scale, hn::Zero(d));
  return Rounded(d, s.scale_cell, scale);
}
// The nearest shift that the format can store. In: the exact zero point, or the minimum.
HWY_INLINE VF StoredShift(DF d, const SchemeSearch& s, VF shift) {
  const Scheme& f = *s.scheme;
  switch (f.zeros) {
    case Zero::kInteger:
      return hn::Min(hn::Max(RoundTo(d, f.rounding, shift), hn::Zero(d)), hn::Set(d, float((1 << f.shift.bits) - 1)));
    case Zero::kMinimum: return s.any_shift ? shift : Rounded(d, f.shift.cell, shift);
    case Zero::kFloat: return Rounded(d, f.shift.cell, shift);
    case Zero::kNone: break;
  }
  return hn::Zero(d);
}

HWY_INLINE Rule RuleOf(const SchemeSearch& s) {
  const Scheme& f = *s.scheme;
  if (f.rule != Rule::kNone) return f.rule;
  if (f.zeros == Zero::kInteger) return Rule::kRangeZero;
  if (f.zeros != Zero::kNone) return Rule::kRange;
  return -s.values->low > s.values->high * 1.01f && f.negative_scale ? Rule::kExtreme : Rule::kAbsMax;
}

// (high - low) / steps; the difference may be infinite.
HWY_INLINE VF StepOf(DF d, VF low, VF high, float steps) {
  const VF by = hn::Set(d, steps), step = hn::Div(hn::Sub(high, low), by);
  return hn::IfThenElse(hn::Gt(step, hn::Set(d, 3.4028235e38f)), hn::Sub(hn::Div(high, by), hn::Div(low, by)), step);
}

// Scale and shift of a group before they are rounded to what is stored, from columns c on.
HWY_INLINE void ExactScales(DF d, const SchemeSearch& s, const Ranges& r, int c, VF& scale, VF& shift) {
  const Scheme& f = *s.scheme;
  const CodeValues& v = *s.values;
  const VF zero = hn::Zero(d), low = hn::Load(d, r.low + c), high = hn::Load(d, r.high + c),
           most = hn::Abs(hn::Max(hn::Neg(low), high));
  const float last = float(v.codes - 1);
  scale = shift = zero;
  switch (RuleOf(s)) {
    case Rule::kExtreme:
      if (v.low != 0) scale = hn::Div(hn::Load(d, r.extreme + c), hn::Set(d, v.low));
      break;
    case Rule::kAbsMax:
      scale = hn::Div(most, hn::Set(d, f.rule_reach > 0 ? f.rule_reach : HWY_MAX(v.high, -v.low)));
      break;
    case Rule::kAbsMean: scale = hn::Load(d, r.mean_magnitude + c); break;
    case Rule::kPowerOfTwo: {  // subnormal ones become 0: too small for any scale
      const VF exponents = hn::BitCast(d, hn::Set(DU(), 0x7f800000u));
      scale = hn::Div(hn::And(most, exponents), hn::And(hn::Set(d, v.high), exponents));
      break;
    }
    case Rule::kRangeZero: {
      const VF bottom = hn::Min(low, zero), top = hn::Max(high, zero);
      scale = StepOf(d, bottom, top, last);
      const auto ok = hn::Gt(scale, zero);
      shift = hn::IfThenElseZero(ok, hn::Div(hn::Neg(bottom), hn::IfThenElse(ok, scale, hn::Set(d, 1.0f))));
      break;
    }
    case Rule::kEdge: {  // also in the order of MLX's operations
      scale = hn::Max(hn::Div(hn::Sub(high, low), hn::Set(d, last)), hn::Set(d, 1e-7f));
      const auto below = hn::Gt(hn::Abs(low), hn::Abs(high));
      scale = hn::IfThenElse(below, scale, hn::Neg(scale));
      const VF edge = hn::IfThenElse(below, low, high), steps = hn::Round(hn::Div(edge, scale));
      const auto some = hn::Gt(hn::Abs(steps), zero);
      scale = hn::IfThenElse(some, hn::Div(edge, hn::IfThenElse(some, steps, hn::Set(d, 1.0f))), scale);
      shift = hn::IfThenElseZero(some, edge);
      break;
    }
    case Rule::kRange:
    case Rule::kNone:
      scale = StepOf(d, low, high, last);
      shift = low;
      if (f.zeros == Zero::kFloat) {
        scale = hn::IfThenElse(hn::Eq(scale, zero), low, scale);  // all weights are the same: code 0 less a zero of -1
        const auto some = hn::Gt(hn::Abs(scale), zero);
        shift = hn::IfThenElseZero(some, hn::Div(hn::Neg(low), hn::IfThenElse(some, scale, hn::Set(d, 1.0f))));
      } else {
        shift = hn::Add(shift, hn::Mul(hn::Set(d, f.zero), scale));
      }
      break;
  }
  if (!f.scaled()) scale = hn::Set(d, 1.0f);
}

// What codes are made with: scale and shift as stored, or those before.
HWY_INLINE void SetDivisor(DF d, const Scheme& f, int c, VF by, VF at, RuleColumns& out) {
  const VF zero = hn::Zero(d), inverse = Invert(d, by), size = hn::Abs(by);
  hn::Store(by, d, out.by + c);
  hn::Store(inverse, d, out.inverse + c);
  hn::Store(f.zeros == Zero::kMinimum ? at : zero, d, out.minus + c);
  hn::Store(f.zeros == Zero::kInteger || f.zeros == Zero::kFloat ? at : hn::Set(d, f.zero), d, out.plus + c);
  const auto moderate = hn::And(hn::Gt(size, hn::Set(d, 0x1p-80f)), hn::Lt(size, hn::Set(d, 0x1p80f)));
  out.moderate = out.moderate && hn::AllTrue(d, hn::Or(moderate, hn::Eq(inverse, zero)));
}

HWY_INLINE void RuleOfColumns(const SchemeSearch& s, const Ranges& r, RuleColumns& out) {
  const DF d;
  const Scheme& f = *s.scheme;
  out.moderate = true;
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF exact_scale, exact_shift;
    ExactScales(d, s, r, c, exact_scale, exact_shift);
    const VF scale = StoredScale(d, s, exact_scale), shift = StoredShift(d, s, exact_shift);
    hn::Store(scale, d, out.scale + c);
    hn::Store(shift, d, out.shift + c);
    const bool stored = f.rounded_scale;
    SetDivisor(d, f, c, stored ? scale : exact_scale, stored || f.zeros == Zero::kInteger ? shift : exact_shift, out);
  }
}

// ---- The codes

enum class Division { kProduct, kQuotient, kFusedQuotient };

// With fused multiplications, what a product with the inverse leaves over leads to the quotient, faster than a
// division. Once is enough for all whole numbers and small floats: none of the few quotients that come near enough to a
// limit between two codes falls on its other side (scheme_rule_test); but zeros lose their sign, which the product has.
// Twice gives the correctly rounded quotient, always.
struct SignedQuotient { VF value, sign; };
template <class V, Division kDivision>
HWY_INLINE SignedQuotient Quotient(VF x, VF by, VF inverse) {
  if constexpr (kDivision == Division::kProduct) {
    const VF u = hn::Mul(x, inverse);
    return {u, u};
  } else if constexpr (kDivision == Division::kQuotient) {
    const VF u = hn::Div(x, by);
    return {u, u};
  } else {
    const VF first = hn::Mul(x, inverse), near = hn::MulAdd(hn::NegMulAdd(first, by, x), inverse, first);
    if constexpr (V::kRounded) return {near, first};
    else return {hn::MulAdd(hn::NegMulAdd(near, by, x), inverse, near), first};
  }
}

// Whole numbers up to `last` as codes, what is below zero being 0. A large sum ends in the whole number.
template <Rounding kRounding>
HWY_INLINE VI WholeCode(DF d, VF u, VF last) {
  const DI di;
#if EDGEQUANT_BYTES_SATURATE
  if constexpr (kRounding == Rounding::kHalfEven) return VI{_mm512_cvtps_epi32(hn::Min(u, last).raw)};
  constexpr float half = kRounding == Rounding::kHalfAway ? 0.49999997f : 0.5f;
  return VI{_mm512_cvttps_epi32(hn::Min(hn::Add(u, hn::Set(d, half)), last).raw)};
#else
  u = hn::Max(u, hn::Zero(d));
  if constexpr (kRounding == Rounding::kHalfAway) u = hn::Trunc(hn::Add(u, hn::Set(d, 0.49999997f)));
  else if constexpr (kRounding == Rounding::kHalfUp) u = hn::Trunc(hn::Add(u, hn::Set(d, 0.5f)));
  return hn::And(hn::BitCast(di, hn::Add(hn::Min(u, last), hn::Set(d, 8388608.0f))), hn::Set(di, 255));
#endif
}

// Codes plus `offset` as bytes, from one vector and from four.
HWY_INLINE void StoreBytes(VI v, uint8_t offset, uint8_t* HWY_RESTRICT out) {
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  v = hn::And(hn::Add(hn::Max(v, hn::Zero(di)), hn::Set(di, offset)), hn::Set(di, 255));
  hn::StoreU(hn::DemoteTo(d8, v), d8, out);
}
HWY_INLINE void StoreBytes(VI a, VI b, VI c, VI e, uint8_t offset, uint8_t* HWY_RESTRICT out) {
#if EDGEQUANT_BYTES_SATURATE
  const hn::CappedTag<uint8_t, 64> d8;
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a.raw, b.raw), _mm512_packs_epi32(c.raw, e.raw));
  const hn::Vec<decltype(d8)> in_order{_mm512_permutexvar_epi32(order, bytes)};
  hn::StoreU(hn::Add(in_order, hn::Set(d8, offset)), d8, out);
#elif HWY_TARGET == HWY_SCALAR
  StoreBytes(a, offset, out);
  StoreBytes(b, offset, out + 1);
  StoreBytes(c, offset, out + 2);
  StoreBytes(e, offset, out + 3);
#else
  const hn::Repartition<int16_t, DI> d16;  // numbers are below 2^15: their upper halves are empty
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const size_t n = size_t(LanesF());
  const auto pair = [&](VI low, VI high) HWY_ATTR {
    return hn::DemoteTo(d8, hn::ConcatEven(d16, hn::BitCast(d16, high), hn::BitCast(d16, low)));
  };
  hn::StoreU(hn::Add(pair(a, b), hn::Set(d8, offset)), d8, out);
  hn::StoreU(hn::Add(pair(c, e), hn::Set(d8, offset)), d8, out + 2 * n);
#endif
}

// Into the second cache: the first would be full of what is not needed yet.
HWY_INLINE void FetchSoon(const float* p) { __builtin_prefetch(p, 0, 2); }

enum class Origin { kPlus, kMinus, kBoth };  // what is not zero of `plus` and `minus`

template <class V, Division kDivision, Rounding kRounding, Origin kOrigin>
struct GroupCodes {
  V values;  // not a reference: bytes that are written could change what it refers to
  VF last;
  size_t ahead;  // meanwhile weights come from memory whose range will be looked for next: this far behind
  uint8_t offset;

  struct Numbers { VF minus, plus, by, inverse; };
  static HWY_INLINE Numbers NumbersOf(const RuleColumns& r, size_t g) {
    const DF d;
    const bool none = kDivision == Division::kQuotient && r.inverse[g] == 0;
    const float by = none ? INFINITY : r.by[g];
    return {hn::Set(d, r.minus[g]), hn::Set(d, r.plus[g]), hn::Set(d, by), hn::Set(d, r.inverse[g])};
  }
  HWY_INLINE VI Code(const Numbers& g, VF v) const {
    const DF d;
    if constexpr (kOrigin != Origin::kPlus) v = hn::Sub(v, g.minus);
    const SignedQuotient u = Quotient<V, kDivision>(v, g.by, g.inverse);
    if constexpr (V::kWhole && kOrigin == Origin::kMinus) return WholeCode<kRounding>(d, u.value, last);
    else if constexpr (V::kWhole) return WholeCode<kRounding>(d, hn::Add(u.value, g.plus), last);
    else if constexpr (V::kRounded) return values.Code(d, u.value, u.sign);
    else return values.Code(d, u.value);
  }
  // Four vectors, of kGroups groups.
  template <size_t kGroups>
  HWY_INLINE void Four(const Numbers* g, const float* HWY_RESTRICT x, uint8_t* HWY_RESTRICT codes) const {
    const DF d;
    const size_t lanes = size_t(LanesF());
    for (size_t k = 0; k < 4; ++k) FetchSoon(x + ahead + k * lanes);
    const auto code = [&](size_t k) HWY_ATTR { return Code(g[k * kGroups / 4], hn::LoadU(d, x + k * lanes)); };
    StoreBytes(code(0), code(1), code(2), code(3), offset, codes);
  }
  template <size_t kGroups>
  HWY_INLINE void Some(const float* HWY_RESTRICT x, size_t count, const RuleColumns& r,
                       uint8_t* HWY_RESTRICT codes) const {
    const size_t four = 4 * size_t(LanesF());
    for (size_t g = 0; g < count; g += kGroups, x += four, codes += four) {
      Numbers numbers[kGroups];
      for (size_t k = 0; k < kGroups; ++k) numbers[k] = NumbersOf(r, g + k);
      Four<kGroups>(numbers, x, codes);
    }
  }
  HWY_INLINE void All(const float* HWY_RESTRICT x, size_t n, size_t count, const RuleColumns& r,
                      uint8_t* HWY_RESTRICT codes) const {
    const DF d;
    const size_t lanes = size_t(LanesF());
    if (n == 2 * lanes && count % 2 == 0) return Some<2>(x, count, r, codes);
    if (n == lanes && count % 4 == 0) return Some<4>(x, count, r, codes);
    for (size_t g = 0; g < count; ++g, x += n, codes += n) {
      const Numbers numbers = NumbersOf(r, g);
      size_t i = 0;
      for (; i + 4 * lanes <= n; i += 4 * lanes) Four<1>(&numbers, x + i, codes + i);
      for (; i + lanes <= n; i += lanes) {
        FetchSoon(x + i + ahead);
        StoreBytes(Code(numbers, hn::LoadU(d, x + i)), offset, codes + i);
      }
      if (i < n) {
        alignas(64) float rest[kColumns] = {};
        alignas(64) uint8_t c[kColumns];
        memcpy(rest, x + i, (n - i) * sizeof(float));
        StoreBytes(Code(numbers, hn::Load(d, rest)), offset, c);
        memcpy(codes + i, c, n - i);
      }
    }
  }
};

// A power of two that is divided by has an exact inverse.
HWY_INLINE Division DivisionOf(const SchemeSearch& s, const RuleColumns& r) {
  const Scheme& f = *s.scheme;
  if (!f.divide) return Division::kProduct;
  if (!r.moderate) return Division::kQuotient;
  if (RuleOf(s) == Rule::kPowerOfTwo || (f.rounded_scale && s.scale_cell == Cell::kE8M0)) return Division::kProduct;
  return HWY_NATIVE_FMA ? Division::kFusedQuotient : Division::kQuotient;
}

template <class V, Division kDivision, Rounding kRounding>
HWY_INLINE void RuleCodes(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count,
                          const RuleColumns& r, size_t ahead, uint8_t offset, uint8_t* codes) {
  const VF last = hn::Set(DF(), float(s.values->codes - 1));
  const auto with = [&](auto origin) HWY_ATTR {
    const GroupCodes<V, kDivision, kRounding, decltype(origin)::value> groups{values, last, ahead, offset};
    groups.All(x, n, count, r, codes);
  };
  if (s.scheme->zeros != Zero::kMinimum) with(std::integral_constant<Origin, Origin::kPlus>());
  else if (s.scheme->zero == 0) with(std::integral_constant<Origin, Origin::kMinus>());
  else with(std::integral_constant<Origin, Origin::kBoth>());
}
template <class V, Rounding kRounding>
HWY_INLINE void RuleCodes(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count,
                          const RuleColumns& r, size_t ahead, uint8_t offset, uint8_t* codes) {
  using enum Division;
  const auto with = [&](auto division) HWY_ATTR {
    RuleCodes<V, decltype(division)::value, kRounding>(values, s, x, n, count, r, ahead, offset, codes);
  };
  switch (DivisionOf(s, r)) {
    case kProduct: return with(std::integral_constant<Division, kProduct>());
    case kQuotient: return with(std::integral_constant<Division, kQuotient>());
    case kFusedQuotient: return with(std::integral_constant<Division, kFusedQuotient>());
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_RULE_INL_H_
