#include "kernels/cpu/scheme_search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scheme_rule.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/scheme_rule-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// The values of the codes and how they are rounded to, as types.
template <class Body>
HWY_INLINE void WithRounding(const SchemeSearch& s, const Body& body) {
  constexpr auto even = std::integral_constant<Rounding, Rounding::kHalfEven>();
  if (s.values->kind != Values::kAffine) return WithValues(*s.values, [&](const auto& v) { body(v, even); });
  const WholeCodes v(*s.values);
  switch (s.scheme->rounding) {
    case Rounding::kHalfEven: return body(v, even);
    case Rounding::kHalfAway: return body(v, std::integral_constant<Rounding, Rounding::kHalfAway>());
    case Rounding::kHalfUp: return body(v, std::integral_constant<Rounding, Rounding::kHalfUp>());
  }
}

// The codes of some groups are found after the scales of the next ones, which take many steps that wait for one another.
template <class V, Rounding kRounding>
HWY_NOINLINE uint32_t RowOf(const V& values, const SchemeSearch& s, const float* x, size_t cols, float* scale, float* shift, uint8_t* codes) {
  const size_t group = s.scheme->GroupCols(cols), groups = (cols + group - 1) / group, whole = cols / group;
  const bool mean = s.scheme->rule == Rule::kAbsMean;
  struct Batch { size_t first, n, count; RuleColumns rule; } batches[2];
  const auto write_codes = [&](const Batch& b) HWY_ATTR {
    RuleCodes<V, kRounding>(values, s, x + b.first * group, b.n, b.count, b.rule, codes + b.first * group);
  };
  Ranges range;
  uint32_t most = 0;
  int turn = 0;
  for (size_t g = 0; g < groups; turn ^= 1) {
    Batch& b = batches[turn];
    b.first = g;
    b.n = g < whole ? group : cols - g * group;
    b.count = g < whole ? HWY_MIN(whole - g, size_t(kColumns)) : 1;
    const float* const at = x + g * group;
    most = HWY_MAX(most, FindRanges(at, b.n, b.count, range));
    if (mean)
      for (size_t k = 0; k < b.count; ++k) {
        double sum = 0;
        for (size_t i = 0; i < b.n; ++i) sum += double(fabsf(at[k * b.n + i]));
        range.mean_magnitude[k] = float(sum / double(b.n));
      }
    RuleOfColumns(s, range, b.rule);
    memcpy(scale + g, b.rule.scale, b.count * sizeof(float));
    memcpy(shift + g, b.rule.shift, b.count * sizeof(float));
    if (g > 0) write_codes(batches[turn ^ 1]);
    g += b.count;
  }
  write_codes(batches[turn ^ 1]);
  return most;
}

uint32_t RuleRowTargeted(const SchemeSearch& s, const float* x, size_t cols, float* scale, float* shift, uint8_t* codes) {
  uint32_t most = 0;
  WithRounding(s, [&](const auto& v, auto rounding) {
    most = RowOf<std::decay_t<decltype(v)>, decltype(rounding)::value>(v, s, x, cols, scale, shift, codes);
  });
  return most;
}

void CodesByRuleTargeted(const SchemeSearch& s, const GroupScale* scale, const float* x, size_t cols, uint8_t* codes) {
  const DF d;
  const Scheme& f = *s.scheme;
  const size_t group = f.GroupCols(cols), groups = (cols + group - 1) / group, whole = cols / group;
  RuleColumns r;
  alignas(64) float by[kColumns] = {}, at[kColumns] = {};
  for (size_t g = 0, count; g < groups; g += count) {
    count = g < whole ? HWY_MIN(whole - g, size_t(kColumns)) : 1;
    for (size_t k = 0; k < count; ++k) {
      by[k] = f.rounded_scale ? scale[g + k].scale : scale[g + k].unrounded_scale;
      at[k] = f.rounded_scale ? scale[g + k].shift : scale[g + k].unrounded_shift;
    }
    r.moderate = true;
    for (int c = 0; c < kColumns; c += LanesF()) SetDivisor(d, f, c, hn::Load(d, by + c), hn::Load(d, at + c), r);
    const size_t n = g < whole ? group : cols - g * group;
    WithRounding(s, [&](const auto& v, auto rounding) {
      RuleCodes<std::decay_t<decltype(v)>, decltype(rounding)::value>(v, s, x + g * group, n, count, r, codes + g * group);
    });
  }
}

GroupScale ScaleByRuleTargeted(const SchemeSearch& s, const GroupRange& range) {
  const DF d;
  Ranges r;
  for (int c = 0; c < kColumns; ++c)
    r.low[c] = range.low, r.high[c] = range.high, r.extreme[c] = range.extreme, r.mean_magnitude[c] = range.mean_magnitude;
  VF scale, shift;
  ExactScales(d, s, r, 0, scale, shift);
  GroupScale g;
  g.unrounded_scale = hn::GetLane(scale);
  g.scale = hn::GetLane(StoredScale(d, s, scale));
  g.shift = hn::GetLane(StoredShift(d, s, shift));
  g.unrounded_shift = s.scheme->zeros == Zero::kInteger ? g.shift : hn::GetLane(shift);
  return g;
}

GroupRange RangeOfTargeted(const float* x, size_t n, uint32_t* largest) {
  Ranges r;
  const uint32_t most = FindRanges(x, n, 1, r);
  if (largest) *largest = most;
  return {r.low[0], r.high[0], r.extreme[0], 0};
}

void WriteCellsTargeted(Cell cell, const float* v, size_t n, uint8_t* out) { StoreCells(cell, v, n, out); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(RuleRowTargeted);
HWY_EXPORT(CodesByRuleTargeted);
HWY_EXPORT(ScaleByRuleTargeted);
HWY_EXPORT(RangeOfTargeted);
HWY_EXPORT(WriteCellsTargeted);

uint32_t RuleRow(const SchemeSearch& s, const float* x, size_t cols, float* scale, float* shift, uint8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(RuleRowTargeted)(s, x, cols, scale, shift, codes);
}
GroupScale ScaleByRule(const SchemeSearch& s, const GroupRange& range) { return HWY_DYNAMIC_DISPATCH(ScaleByRuleTargeted)(s, range); }
void CodesByRule(const SchemeSearch& s, const GroupScale* scale, const float* x, size_t cols, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(CodesByRuleTargeted)(s, scale, x, cols, codes);
}
GroupRange RangeOf(const float* x, size_t n, uint32_t* largest) { return HWY_DYNAMIC_DISPATCH(RangeOfTargeted)(x, n, largest); }
void WriteCells(Cell cell, const float* v, size_t n, uint8_t* out) { HWY_DYNAMIC_DISPATCH(WriteCellsTargeted)(cell, v, n, out); }

}  // namespace edgequant
#endif
