#include "kernels/cpu/scheme_search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scheme_rule.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/scheme_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// The values of the codes and how they are rounded to, as types.
template <class Body>
HWY_INLINE void WithRounding(const SchemeSearch& s, const Body& body) {
  constexpr auto even = std::integral_constant<Rounding, Rounding::kHalfEven>();
#if EDGEQUANT_FLOAT8
  if (Float8Codes::Are(*s.values)) return body(Float8Codes(*s.values), even);
#endif
  if (s.values->kind != Values::kAffine) return WithValues(*s.values, [&](const auto& v) { body(v, even); });
  const WholeCodes v(*s.values);
  switch (s.scheme->rounding) {
    case Rounding::kHalfEven: return body(v, even);
    case Rounding::kHalfAway: return body(v, std::integral_constant<Rounding, Rounding::kHalfAway>());
    case Rounding::kHalfUp: return body(v, std::integral_constant<Rounding, Rounding::kHalfUp>());
  }
}

constexpr size_t kTile = 1024, kSoon = 2048;  // weights

// The rule for the groups whose ranges these are; `most` grows to the bits of the largest magnitude.
HWY_INLINE void RuleOfGroups(const SchemeSearch& s, const float* x, size_t n, size_t count, const RangeParts& parts,
                             RuleColumns& rule, float* scale, float* shift, VI& most) {
  Ranges range;
  RangesOf(x, n, count, parts, range, most);
  if (s.scheme->rule == Rule::kAbsMean)
    for (size_t k = 0; k < count; ++k) {
      double sum = 0;
      for (size_t i = 0; i < n; ++i) sum += double(fabsf(x[k * n + i]));
      range.mean_magnitude[k] = float(sum / double(n));
    }
  RuleOfColumns(s, range, rule);
  memcpy(scale, rule.scale, count * sizeof(float));
  memcpy(shift, rule.shift, count * sizeof(float));
}

// `count` groups of n weights, in tiles of up to 16 groups, each in three steps. What leads from ranges to scales waits
// for itself in many places, so each step lags a tile behind the one before.
template <class V, Rounding kRounding>
HWY_NOINLINE uint32_t TilesOf(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count,
                              float* scale, float* shift, const CodePlace& codes) {
  struct Tile { RangeParts parts; RuleColumns rule; } ring[3];
  const size_t groups = HWY_MIN(kTile / n, size_t(kColumns)), tiles = (count + groups - 1) / groups;
  VI most = hn::Zero(DI());
  for (size_t t = 0; t < tiles + 2; ++t) {
    const auto step = [&](size_t behind, const auto& body) HWY_ATTR {
      const size_t k = t - behind, g = k * groups;
      if (k < tiles) body(ring[k % 3], x + g * n, g, HWY_MIN(count - g, groups));
    };
    step(0, [&](Tile& tile, const float* at, size_t, size_t some) HWY_ATTR { FindParts(at, n, some, tile.parts); });
    step(1, [&](Tile& tile, const float* at, size_t g, size_t some) HWY_ATTR {
      RuleOfGroups(s, at, n, some, tile.parts, tile.rule, scale + g, shift + g, most);
    });
    step(2, [&](const Tile& tile, const float* at, size_t g, size_t some) HWY_ATTR {
      RuleCodes<V, kRounding>(values, s, at, n, some, tile.rule, 2 * groups * n + kSoon, codes.From(g * n));
    });
  }
  return uint32_t(hn::GetLane(hn::MaxOfLanes(DI(), most)));
}

// Groups longer than a tile, one by one: between the pieces of a group's codes lie those of the look for the range of
// the next, so that memory is never idle.
template <class V, Rounding kRounding>
HWY_NOINLINE uint32_t LongGroupsOf(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count,
                                   float* scale, float* shift, const CodePlace& codes) {
  RangeParts parts;
  RuleColumns rule;
  VI most = hn::Zero(DI());
  for (size_t g = 0; g <= count; ++g) {
    const float *const next = x + g * n, *const at = next - n;
    Extremes e = {hn::Zero(DI()), hn::Zero(DU())};
    for (size_t i = 0; i < n; i += kTile) {
      const size_t some = HWY_MIN(kTile, n - i);
      if (g < count) e = i ? ExtremesOf(e, ExtremesOfAny(next + i, some)) : ExtremesOfAny(next, some);
      if (g > 0) RuleCodes<V, kRounding>(values, s, at + i, some, 1, rule, n + kSoon, codes.From((g - 1) * n + i));
    }
    if (g == count) break;
    StoreExtremes(1, parts, [&](size_t) HWY_ATTR { return e; });
    RuleOfGroups(s, next, n, 1, parts, rule, scale + g, shift + g, most);
  }
  return uint32_t(hn::GetLane(hn::MaxOfLanes(DI(), most)));
}

template <class V, Rounding kRounding>
HWY_INLINE uint32_t GroupsOf(const V& values, const SchemeSearch& s, const float* x, size_t cols, size_t group,
                             float* scale, float* shift, const CodePlace& codes) {
  const size_t whole = cols / group, rest = cols % group;
  const auto tiles = [&](size_t n, size_t count, size_t first) HWY_ATTR {
    const auto of = n > kTile ? LongGroupsOf<V, kRounding> : TilesOf<V, kRounding>;
    return of(values, s, x + first * group, n, count, scale + first, shift + first, codes.From(first * group));
  };
  const uint32_t most = whole ? tiles(group, whole, 0) : 0;
  return rest ? HWY_MAX(most, tiles(rest, 1, whole)) : most;
}

uint32_t RuleGroupsTargeted(const SchemeSearch& s, const float* x, size_t cols, size_t group, float* scale,
                            float* shift, const CodePlace& codes) {
  uint32_t most = 0;
  WithRounding(s, [&](const auto& v, auto rounding) {
    using V = std::decay_t<decltype(v)>;
    most = GroupsOf<V, decltype(rounding)::value>(v, s, x, cols, group, scale, shift, codes);
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
      using V = std::decay_t<decltype(v)>;
      RuleCodes<V, decltype(rounding)::value>(v, s, x + g * group, n, count, r, n * count, {codes + g * group});
    });
  }
}

GroupScale ScaleByRuleTargeted(const SchemeSearch& s, const GroupRange& range) {
  const DF d;
  Ranges r;
  for (int c = 0; c < kColumns; ++c)
    r.low[c] = range.low, r.high[c] = range.high, r.extreme[c] = range.extreme,
    r.mean_magnitude[c] = range.mean_magnitude;
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
  RangeParts parts;
  FindParts(x, n, 1, parts);
  VI most = hn::Zero(DI());
  RangesOf(x, n, 1, parts, r, most);
  if (largest) *largest = uint32_t(hn::GetLane(hn::MaxOfLanes(DI(), most)));
  return {r.low[0], r.high[0], r.extreme[0], 0};
}

void WriteCellsTargeted(Cell cell, const float* v, size_t n, uint8_t* out) { StoreCells(cell, v, n, out); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(RuleGroupsTargeted);
HWY_EXPORT(CodesByRuleTargeted);
HWY_EXPORT(ScaleByRuleTargeted);
HWY_EXPORT(RangeOfTargeted);
HWY_EXPORT(WriteCellsTargeted);

uint32_t RuleGroups(const SchemeSearch& s, const float* x, size_t cols, size_t group, float* scale, float* shift,
                    const CodePlace& codes) {
  return HWY_DYNAMIC_DISPATCH(RuleGroupsTargeted)(s, x, cols, group, scale, shift, codes);
}
GroupScale ScaleByRule(const SchemeSearch& s, const GroupRange& range) {
  return HWY_DYNAMIC_DISPATCH(ScaleByRuleTargeted)(s, range);
}
void CodesByRule(const SchemeSearch& s, const GroupScale* scale, const float* x, size_t cols, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(CodesByRuleTargeted)(s, scale, x, cols, codes);
}
GroupRange RangeOf(const float* x, size_t n, uint32_t* largest) {
  return HWY_DYNAMIC_DISPATCH(RangeOfTargeted)(x, n, largest);
}
void WriteCells(Cell cell, const float* v, size_t n, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(WriteCellsTargeted)(cell, v, n, out);
}

}  // namespace edgequant
#endif
