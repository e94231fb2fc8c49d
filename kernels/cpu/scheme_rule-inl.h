// Where the reference encoders of the ecosystems put the scales of 16 groups side by side. Each step rounds as theirs
// do.
#if defined(EDGEQUANT_SCHEME_RULE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_RULE_INL_H_
#undef EDGEQUANT_SCHEME_RULE_INL_H_
#else
#define EDGEQUANT_SCHEME_RULE_INL_H_
#endif

#include "kernels/cpu/cells-inl.h"
#include "kernels/cpu/scheme_ranges-inl.h"
#include "kernels/cpu/scheme_search.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

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

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_RULE_INL_H_
