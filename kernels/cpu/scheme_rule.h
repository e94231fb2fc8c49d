// Where the reference encoders of the ecosystems put the scale of a group.
#pragma once
#include <math.h>

#include <algorithm>

#include "kernels/cpu/scheme_search.h"

namespace edgequant {

inline float HalfAway(float v) { return std::trunc(v + std::copysign(0.49999997f, v)); }
inline float RoundTo(Rounding r, float v) {
  return r == Rounding::kHalfEven ? std::nearbyint(v) : r == Rounding::kHalfAway ? HalfAway(v) : std::floor(v + 0.5f);
}
inline float PowerOfTwoBelow(float v) {  // 2^floor(log2 v)
  int e;
  std::frexp(v, &e);
  return std::ldexp(1.0f, e - 1);
}

// The nearest shift that the format can store for this scale. In: the exact zero point, or the minimum.
inline float StoredShift(const SchemeSearch& s, float shift) {
  const Scheme& f = *s.scheme;
  switch (f.zeros) {
    case Zero::kInteger:
      return std::min(std::max(RoundTo(f.rounding, shift), 0.0f), float((1 << f.shift.bits) - 1));
    case Zero::kFloat: return AsStored(f.shift.cell, shift);
    case Zero::kMinimum: return s.any_shift ? shift : AsStored(f.shift.cell, shift);
    case Zero::kNone: break;
  }
  return 0;
}

inline float StoredScale(const SchemeSearch& s, float scale) {
  if (!s.scheme->scaled()) return 1;
  if (!s.scheme->negative_scale) scale = std::max(scale, 0.0f);
  return AsStored(s.scale_cell, scale);
}

inline GroupScale RuleScale(const SchemeSearch& s, const GroupRange& r) {
  const Scheme& f = *s.scheme;
  const CodeValues& v = *s.values;
  const float most = std::max(-r.low, r.high), last = float(v.codes - 1);
  float scale = 0, shift = 0;
  Rule rule = f.rule;
  if (rule == Rule::kNone)
    rule = f.zeros == Zero::kInteger                          ? Rule::kRangeZero
           : f.zeros != Zero::kNone                           ? Rule::kRange
           : -v.low > v.high * 1.01f && f.negative_scale      ? Rule::kExtreme
                                                              : Rule::kAbsMax;
  switch (rule) {
    case Rule::kExtreme: scale = v.low != 0 ? r.extreme / v.low : 0; break;
    case Rule::kAbsMax: scale = most / (f.rule_reach > 0 ? f.rule_reach : std::max(v.high, -v.low)); break;
    case Rule::kAbsMean: scale = r.mean_magnitude; break;
    case Rule::kPowerOfTwo: scale = most > 0 ? PowerOfTwoBelow(most) / PowerOfTwoBelow(v.high) : 0; break;
    case Rule::kRangeZero: {
      const float low = std::min(r.low, 0.0f), high = std::max(r.high, 0.0f);
      scale = (high - low) / last;
      if (std::isinf(scale)) scale = high / last - low / last;
      shift = scale > 0 ? -low / scale : 0;
      break;
    }
    case Rule::kEdge: {  // also in the order of MLX's operations
      scale = std::max((r.high - r.low) / last, 1e-7f);
      const bool below = std::abs(r.low) > std::abs(r.high);
      if (!below) scale = -scale;
      const float edge = below ? r.low : r.high, steps = std::nearbyint(edge / scale);
      if (steps != 0) scale = edge / steps, shift = edge;
      break;
    }
    case Rule::kRange:
    case Rule::kNone:
      scale = (r.high - r.low) / last;
      if (std::isinf(scale)) scale = r.high / last - r.low / last;
      shift = r.low;
      if (f.zeros == Zero::kFloat) {
        if (scale == 0) scale = r.low;  // all weights are the same: code 0 less a zero of -1
        shift = scale != 0 ? -r.low / scale : 0;
      } else {
        shift += f.zero * scale;
      }
      break;
  }
  GroupScale g;
  g.unrounded_scale = f.scaled() ? scale : 1;
  g.scale = StoredScale(s, scale);
  g.shift = StoredShift(s, shift);
  g.unrounded_shift = f.zeros == Zero::kInteger ? g.shift : shift;
  return g;
}

}  // namespace edgequant
