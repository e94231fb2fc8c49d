// Where the reference encoders of the ecosystems put the scales of 16 groups side by side, and how they round to codes.
// Each step rounds as theirs do.
#if defined(EDGEQUANT_SCHEME_RULE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_RULE_INL_H_
#undef EDGEQUANT_SCHEME_RULE_INL_H_
#else
#define EDGEQUANT_SCHEME_RULE_INL_H_
#endif

#include <hwy/cache_control.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cells-inl.h"
#include "kernels/cpu/scheme_search.h"
#include "kernels/cpu/scheme_values-inl.h"

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
  hn::Vec<D> a, b, c, e;
  hn::LoadInterleaved4(d, parts, a, b, c, e);
  return hn::Max(hn::Max(a, b), hn::Max(c, e));
}
#endif

HWY_INLINE uint32_t BitsOf(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}

// Of `count` groups of n weights that follow one another, without the means; returns the bits of the largest magnitude,
// as LargestMagnitude. The bits of floats are compared, as signed numbers for the highest weight and as unsigned ones for
// the lowest: so NaN is found, too. In groups of one sign both are that of largest magnitude, and are found again.
HWY_INLINE uint32_t FindRanges(const float* HWY_RESTRICT x, size_t n, size_t count, Ranges& r) {
  const DF d;
  const DI di;
  const DU du;
  const size_t lanes = size_t(LanesF());
  alignas(64) int32_t highs[kColumns * kLaneParts];
  alignas(64) uint32_t lows[kColumns * kLaneParts];
  const float* from = x;
  for (size_t g = 0; g < count; ++g, from += n) {
    VI high0 = hn::Set(di, INT32_MIN), high1 = high0;
    VU low0 = hn::Zero(du), low1 = low0;
    size_t i = 0;
    if (n >= 2 * lanes) {
      const VF a = hn::LoadU(d, from), b = hn::LoadU(d, from + lanes);
      high0 = hn::BitCast(di, a), high1 = hn::BitCast(di, b);
      low0 = hn::BitCast(du, a), low1 = hn::BitCast(du, b);
      i = 2 * lanes;
    }
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      const VF a = hn::LoadU(d, from + i), b = hn::LoadU(d, from + i + lanes);
      high0 = hn::Max(high0, hn::BitCast(di, a));
      high1 = hn::Max(high1, hn::BitCast(di, b));
      low0 = hn::Max(low0, hn::BitCast(du, a));
      low1 = hn::Max(low1, hn::BitCast(du, b));
    }
    for (; i < n; i += lanes) {
      VF v;
      if (i + lanes <= n) {
        v = hn::LoadU(d, from + i);
      } else {  // the last weights are looked at again
        alignas(64) float rest[kColumns];
        for (size_t k = 0; k < lanes; ++k) rest[k] = from[HWY_MIN(i + k, n - 1)];
        v = hn::Load(d, rest);
      }
      high0 = hn::Max(high0, hn::BitCast(di, v));
      low0 = hn::Max(low0, hn::BitCast(du, v));
    }
    StoreParts(di, hn::Max(high0, high1), highs + g * kLaneParts);
    StoreParts(du, hn::Max(low0, low1), lows + g * kLaneParts);
  }
  for (size_t k = count * kLaneParts; k < kColumns * kLaneParts; ++k) highs[k] = 1, lows[k] = 0x80000002;  // no group needs a second look
  uint32_t again = 0;
  VI most = hn::Zero(di);
  for (size_t c = 0; c < size_t(kColumns); c += lanes) {
    const VI top = LargestOfParts(di, highs + c * kLaneParts);
    const VU bottom = LargestOfParts(du, lows + c * kLaneParts);
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
  return r == Rounding::kHalfEven ? hn::Round(v) : r == Rounding::kHalfAway ? HalfAway(d, v) : hn::Floor(hn::Add(v, hn::Set(d, 0.5f)));
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
  const VF zero = hn::Zero(d), low = hn::Load(d, r.low + c), high = hn::Load(d, r.high + c), most = hn::Abs(hn::Max(hn::Neg(low), high));
  const float last = float(v.codes - 1);
  scale = shift = zero;
  switch (RuleOf(s)) {
    case Rule::kExtreme:
      if (v.low != 0) scale = hn::Div(hn::Load(d, r.extreme + c), hn::Set(d, v.low));
      break;
    case Rule::kAbsMax: scale = hn::Div(most, hn::Set(d, f.rule_reach > 0 ? f.rule_reach : HWY_MAX(v.high, -v.low))); break;
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

constexpr size_t kAhead = 1024;  // weights

enum class Division { kProduct, kQuotient, kFusedQuotient };

// With fused multiplications, what a product with the inverse leaves over leads to the quotient, faster than a division. Once
// is enough for all whole numbers and small floats: none of the few quotients that come near enough to a limit between two
// codes falls on its other side (scheme_rule_test). Twice gives the correctly rounded quotient, always.
template <class V, Division kDivision>
HWY_INLINE VF Quotient(VF x, VF by, VF inverse) {
  if constexpr (kDivision == Division::kProduct) {
    return hn::Mul(x, inverse);
  } else if constexpr (kDivision == Division::kQuotient) {
    return hn::Div(x, by);
  } else {
    const VF first = hn::Mul(x, inverse), near = hn::MulAdd(hn::NegMulAdd(first, by, x), inverse, first);
    if constexpr (V::kWhole) return near;
    else if constexpr (V::kRounded) return hn::CopySign(near, first);  // zeros have a sign
    else return hn::MulAdd(hn::NegMulAdd(near, by, x), inverse, near);
  }
}

// The lowest byte of each number, which is below 2^15 in the lower half. (Highway 1.0.3's TruncateTo is wrong for bytes on
// AVX3_DL.)
template <class D>
HWY_INLINE void StoreBytes(D, hn::Vec<D> v, uint8_t* HWY_RESTRICT out) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint8_t, D> d8;
  hn::StoreU(hn::DemoteTo(d8, hn::And(hn::BitCast(di, v), hn::Set(di, 255))), d8, out);
}
template <class D>
HWY_INLINE void StoreBytes(D du, hn::Vec<D> a, hn::Vec<D> b, uint8_t* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR
  StoreBytes(du, a, out);
  StoreBytes(du, b, out + 1);
#else
  (void)du;
  const hn::Repartition<int16_t, D> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  hn::StoreU(hn::DemoteTo(d8, hn::ConcatEven(d16, hn::BitCast(d16, b), hn::BitCast(d16, a))), d8, out);
#endif
}

template <class V, Division kDivision, Rounding kRounding, bool kMinus>
HWY_INLINE void CodesOfGroups(const V& values, const float* HWY_RESTRICT x, size_t n, size_t count, const RuleColumns& r,
                              float high, uint8_t* HWY_RESTRICT codes) {
  const DF d;
  const DU du;
  const size_t lanes = size_t(LanesF());
  const VF last = hn::Set(d, high);
  // Meanwhile the weights that come next, of which only the range is looked for at first, come from memory.
  const size_t ahead = HWY_MAX(2 * n * count, kAhead);
  for (size_t g = 0; g < count; ++g, x += n, codes += n) {
    const VF minus = hn::Set(d, r.minus[g]), plus = hn::Set(d, r.plus[g]), inverse = hn::Set(d, r.inverse[g]);
    const bool none = kDivision == Division::kQuotient && r.inverse[g] == 0;
    const VF by = hn::Set(d, none ? INFINITY : r.by[g]);
    const auto code = [&](VF v) HWY_ATTR {
      if constexpr (kMinus) v = hn::Sub(v, minus);
      VF u = Quotient<V, kDivision>(v, by, inverse);
      if constexpr (!V::kWhole) {
        return hn::BitCast(du, values.Code(d, u));
      } else {  // a large sum ends in the whole number
        u = hn::Max(hn::Add(u, plus), hn::Zero(d));
        if constexpr (kRounding == Rounding::kHalfAway) u = hn::Trunc(hn::Add(u, hn::Set(d, 0.49999997f)));
        else if constexpr (kRounding == Rounding::kHalfUp) u = hn::Trunc(hn::Add(u, hn::Set(d, 0.5f)));
        return hn::BitCast(du, hn::Add(hn::Min(u, last), hn::Set(d, 8388608.0f)));
      }
    };
    size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      hwy::Prefetch(x + i + ahead);
      hwy::Prefetch(x + i + ahead + lanes);
      StoreBytes(du, code(hn::LoadU(d, x + i)), code(hn::LoadU(d, x + i + lanes)), codes + i);
    }
    for (; i + lanes <= n; i += lanes) {
      hwy::Prefetch(x + i + ahead);
      StoreBytes(du, code(hn::LoadU(d, x + i)), codes + i);
    }
    if (i < n) {
      alignas(64) float rest[kColumns] = {};
      alignas(64) uint8_t c[kColumns];
      memcpy(rest, x + i, (n - i) * sizeof(float));
      StoreBytes(du, code(hn::Load(d, rest)), c);
      memcpy(codes + i, c, n - i);
    }
  }
}

// A power of two that is divided by has an exact inverse.
HWY_INLINE Division DivisionOf(const SchemeSearch& s, const RuleColumns& r) {
  const Scheme& f = *s.scheme;
  if (!f.divide) return Division::kProduct;
  if (!r.moderate) return Division::kQuotient;
  if (RuleOf(s) == Rule::kPowerOfTwo || (f.rounded_scale && s.scale_cell == Cell::kE8M0)) return Division::kProduct;
  return HWY_NATIVE_FMA ? Division::kFusedQuotient : Division::kQuotient;
}

template <class V, Rounding kRounding, bool kMinus>
HWY_INLINE void RuleCodes(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count, const RuleColumns& r,
                          uint8_t* codes) {
  using enum Division;
  const float high = float(s.values->codes - 1);
  switch (DivisionOf(s, r)) {
    case kProduct: return CodesOfGroups<V, kProduct, kRounding, kMinus>(values, x, n, count, r, high, codes);
    case kQuotient: return CodesOfGroups<V, kQuotient, kRounding, kMinus>(values, x, n, count, r, high, codes);
    case kFusedQuotient: return CodesOfGroups<V, kFusedQuotient, kRounding, kMinus>(values, x, n, count, r, high, codes);
  }
}
template <class V, Rounding kRounding>
HWY_INLINE void RuleCodes(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count, const RuleColumns& r,
                          uint8_t* codes) {
  if (s.scheme->zeros == Zero::kMinimum) RuleCodes<V, kRounding, true>(values, s, x, n, count, r, codes);
  else RuleCodes<V, kRounding, false>(values, s, x, n, count, r, codes);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_RULE_INL_H_
