#include "kernels/cpu/scheme_search.h"

#include <string.h>

#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scheme_search.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/scheme_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

template <class Body>
HWY_INLINE void WithValues(const CodeValues& v, const Body& body) {
  if (v.kind == Values::kAffine) return body(WholeCodes(v));
  if (v.kind == Values::kMinifloat) return body(MinifloatCodes(v));
  switch (v.levels) {
    case 1: return body(TableCodes<1>(v));
    case 2: return body(TableCodes<2>(v));
    case 3: return body(TableCodes<3>(v));
    case 4: return body(TableCodes<4>(v));
    case 5: return body(TableCodes<5>(v));
    case 6: return body(TableCodes<6>(v));
    case 7: return body(TableCodes<7>(v));
    default: return body(TableCodes<8>(v));
  }
}

// n numbers of each of 16 columns, transposed.
HWY_INLINE void FillColumns(const float* const* from, size_t n, float* HWY_RESTRICT out) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float* at[kColumns];
    for (int j = 0; j < kColumns; ++j) at[j] = from[j] + i;
    Transpose<4>(at, reinterpret_cast<float(*)[kColumns]>(out + i * kColumns));
  }
  for (; i < n; ++i)
    for (int j = 0; j < kColumns; ++j) out[i * kColumns + size_t(j)] = from[j][i];
}

// Memory for floats in whole lines of 64 bytes.
class Lines {
 public:
  explicit Lines(size_t n) : memory_(n + kColumns) {}
  float* data() {
    const size_t over = reinterpret_cast<uintptr_t>(memory_.data()) % 64;
    return memory_.data() + (64 - over) % 64 / sizeof(float);
  }

 private:
  std::vector<float> memory_;
};

template <class V>
HWY_NOINLINE void SearchTiles(const V& values, const SchemeSearch& s, const float* x, size_t rows, size_t cols,
                              const float* importance, float* scale, float* shift) {
  const size_t group = s.scheme->GroupCols(cols), per_row = (cols + group - 1) / group, total = rows * per_row;
  Lines xs(group * kColumns), ws(group * kColumns), short_x(group * kColumns), short_w(group * kColumns);
  const std::vector<float> ones(group, 1.0f), zeros(group, 0.0f);
  GroupTile tile;
  tile.n = group;
  tile.x = xs.data();
  tile.w = ws.data();
  bool weights_are_ones = false;
  for (size_t at = 0; at < total; at += kColumns) {
    const float *from[kColumns], *weight[kColumns];
    bool ragged = false;
    for (size_t j = 0; j < size_t(kColumns); ++j) {
      if (at + j >= total) {
        from[j] = zeros.data();
        weight[j] = zeros.data();
        ragged = true;
        continue;
      }
      const size_t row = (at + j) / per_row, c = (at + j) % per_row * group, n = HWY_MIN(group, cols - c);
      from[j] = x + row * cols + c;
      weight[j] = importance ? importance + c : ones.data();
      if (n < group) {
        float *sx = short_x.data() + j * group, *sw = short_w.data() + j * group;
        for (size_t i = 0; i < group; ++i) sx[i] = from[j][i < n ? i : 0], sw[i] = i < n ? weight[j][i] : 0;
        from[j] = sx;
        weight[j] = sw;
        ragged = true;
      }
    }
    FillColumns(from, group, xs.data());
    if (importance || ragged || !weights_are_ones) FillColumns(weight, group, ws.data());
    weights_are_ones = !importance && !ragged;
    float found_scale[kColumns], found_shift[kColumns];
    Searcher<V>(s, values, tile).Run(found_scale, found_shift);
    for (size_t j = 0; j < size_t(kColumns) && at + j < total; ++j)
      scale[at + j] = found_scale[j], shift[at + j] = found_shift[j];
  }
}

void SearchScalesTargeted(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
                          float* scale, float* shift) {
  WithValues(*s.values, [&](const auto& v) { SearchTiles(v, s, x, rows, cols, importance, scale, shift); });
}

void SearchGroupTargeted(const SchemeSearch& s, const float* x, const float* w, size_t n, float* scale, float* shift) {
  GroupTile tile;
  tile.one = true;
  tile.n = (n + kColumns - 1) / kColumns;
  Lines xs(tile.n * kColumns), ws(tile.n * kColumns);
  for (size_t i = 0; i < tile.n * kColumns; ++i) {
    xs.data()[i] = x[i < n ? i : 0];
    ws.data()[i] = i >= n ? 0 : w ? w[i] : 1;
  }
  tile.x = xs.data();
  tile.w = ws.data();
  float found_scale[kColumns], found_shift[kColumns];
  WithValues(*s.values, [&](const auto& v) {
    Searcher<std::decay_t<decltype(v)>>(s, v, tile).Run(found_scale, found_shift);
  });
  *scale = found_scale[0];
  *shift = found_shift[0];
}

template <class V>
HWY_INLINE void CodeGroup(const V& values, const float* HWY_RESTRICT x, size_t n, float inverse, float start,
                          uint8_t* HWY_RESTRICT codes) {
  const DF d;
  const hn::Rebind<uint8_t, DF> d8;
  const VF is = hn::Set(d, inverse), b = hn::Set(d, start);
  const size_t lanes = size_t(LanesF());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::StoreU(hn::DemoteTo(d8, values.Code(d, hn::MulAdd(hn::LoadU(d, x + i), is, b))), d8, codes + i);
  if (i < n) {
    alignas(64) float rest[kColumns] = {};
    alignas(64) uint8_t c[kColumns];
    memcpy(rest, x + i, (n - i) * sizeof(float));
    hn::StoreU(hn::DemoteTo(d8, values.Code(d, hn::MulAdd(hn::Load(d, rest), is, b))), d8, c);
    memcpy(codes + i, c, n - i);
  }
}

void ChooseCodesTargeted(const SchemeSearch& s, const float* x, size_t n, float scale, float shift, uint8_t* codes) {
  const Scheme& f = *s.scheme;
  const float inverse = SafeInverse(scale);
  float start = 0;
  if (f.zeros == Zero::kFloat) start = shift * scale * inverse;  // as in the search
  else if (f.zeros == Zero::kMinimum) start = -(shift - f.zero * scale) * inverse;
  else if (s.values->kind == Values::kAffine) start = f.zeros == Zero::kInteger ? shift : f.zero;
  WithValues(*s.values, [&](const auto& v) { CodeGroup(v, x, n, inverse, start, codes); });
}

// The reference's order of operations: (x - minimum) / scale or x / scale + zero, then its rounding.
template <class V, bool kDivide, Rounding kRounding>
HWY_INLINE void RuleCodes(const V& values, const float* HWY_RESTRICT x, size_t n, float scale, float minus, float plus,
                          float high, uint8_t* HWY_RESTRICT codes) {
  const DF d;
  const DI di;
  const hn::Rebind<uint8_t, DF> d8;
  const float inverse = SafeInverse(scale);
  const VF sv = hn::Set(d, kDivide && inverse != 0 ? scale : 1.0f), is = hn::Set(d, inverse), m = hn::Set(d, minus), p = hn::Set(d, plus);
  const auto code = [&](const float* from) HWY_ATTR {
    VF u = hn::Sub(hn::LoadU(d, from), m);
    u = kDivide && inverse != 0 ? hn::Div(u, sv) : hn::Mul(u, is);
    if constexpr (!V::kWhole) return hn::DemoteTo(d8, values.Code(d, u));
    u = hn::Add(u, p);
    if constexpr (kRounding == Rounding::kHalfAway) u = hn::Trunc(hn::Add(u, hn::CopySign(hn::Set(d, 0.49999997f), u)));
    else if constexpr (kRounding == Rounding::kHalfUp) u = hn::Floor(hn::Add(u, hn::Set(d, 0.5f)));
    else u = hn::Round(u);
    u = hn::Min(hn::Max(u, hn::Zero(d)), hn::Set(d, high));
    return hn::DemoteTo(d8, hn::ConvertTo(di, u));
  };
  const size_t lanes = size_t(LanesF());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(code(x + i), d8, codes + i);
  if (i < n) {
    alignas(64) float rest[kColumns] = {};
    alignas(64) uint8_t c[kColumns];
    memcpy(rest, x + i, (n - i) * sizeof(float));
    hn::StoreU(code(rest), d8, c);
    memcpy(codes + i, c, n - i);
  }
}

HWY_INLINE GroupRange RangeOfGroup(const float* HWY_RESTRICT x, size_t n, bool mean) {
  const DF d;
  const size_t lanes = size_t(LanesF());
  GroupRange r = {x[0], x[0], 0, 0};
  size_t i = 0;
  if (n >= lanes) {
    VF low = hn::LoadU(d, x), high = low;
    for (i = lanes; i + lanes <= n; i += lanes) {
      const VF v = hn::LoadU(d, x + i);
      low = hn::Min(low, v);
      high = hn::Max(high, v);
    }
    r.low = hn::GetLane(hn::MinOfLanes(d, low));
    r.high = hn::GetLane(hn::MaxOfLanes(d, high));
  }
  for (; i < n; ++i) r.low = HWY_MIN(r.low, x[i]), r.high = HWY_MAX(r.high, x[i]);
  r.extreme = r.high > -r.low ? r.high : r.low;
  if (r.high == -r.low)  // of two with opposite signs the first
    for (i = 0; i < n; ++i)
      if (x[i] == r.high || x[i] == r.low) {
        r.extreme = x[i];
        break;
      }
  if (mean) {
    double sum = 0;
    for (i = 0; i < n; ++i) sum += double(fabsf(x[i]));
    r.mean_magnitude = float(sum / double(n));
  }
  return r;
}

void CodesByRuleTargeted(const SchemeSearch& s, const GroupScale& r, const float* x, size_t n, uint8_t* codes) {
  const Scheme& f = *s.scheme;
  const float by = f.rounded_scale ? r.scale : r.unrounded_scale, at = f.rounded_scale ? r.shift : r.unrounded_shift;
  const float minus = f.zeros == Zero::kMinimum ? at : 0, high = float(s.values->codes - 1);
  const float plus = f.zeros == Zero::kInteger || f.zeros == Zero::kFloat ? at : f.zero;
  const auto run = [&](auto divide) {
    constexpr bool kDivide = decltype(divide)::value;
    if (s.values->kind != Values::kAffine)
      return WithValues(*s.values, [&](const auto& v) {
        RuleCodes<std::decay_t<decltype(v)>, kDivide, Rounding::kHalfEven>(v, x, n, by, minus, plus, high, codes);
      });
    const WholeCodes v(*s.values);
    switch (f.rounding) {
      case Rounding::kHalfEven: return RuleCodes<WholeCodes, kDivide, Rounding::kHalfEven>(v, x, n, by, minus, plus, high, codes);
      case Rounding::kHalfAway: return RuleCodes<WholeCodes, kDivide, Rounding::kHalfAway>(v, x, n, by, minus, plus, high, codes);
      case Rounding::kHalfUp: return RuleCodes<WholeCodes, kDivide, Rounding::kHalfUp>(v, x, n, by, minus, plus, high, codes);
    }
  };
  if (f.divide) run(std::true_type());
  else run(std::false_type());
}

void RuleRowTargeted(const SchemeSearch& s, const float* x, size_t cols, float* scale, float* shift, uint8_t* codes) {
  const size_t group = s.scheme->GroupCols(cols);
  for (size_t i = 0, g = 0; i < cols; i += group, ++g) {
    const size_t n = HWY_MIN(group, cols - i);
    const GroupScale r = RuleScale(s, RangeOfGroup(x + i, n, s.scheme->rule == Rule::kAbsMean));
    scale[g] = r.scale;
    shift[g] = r.shift;
    CodesByRuleTargeted(s, r, x + i, n, codes + i);
  }
}

GroupRange RangeOfTargeted(const float* x, size_t n) { return RangeOfGroup(x, n, false); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchScalesTargeted);
HWY_EXPORT(SearchGroupTargeted);
HWY_EXPORT(ChooseCodesTargeted);
HWY_EXPORT(RuleRowTargeted);
HWY_EXPORT(CodesByRuleTargeted);
HWY_EXPORT(RangeOfTargeted);

void SearchScales(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance, float* scale,
                  float* shift) {
  HWY_DYNAMIC_DISPATCH(SearchScalesTargeted)(s, x, rows, cols, importance, scale, shift);
}
void SearchGroup(const SchemeSearch& s, const float* x, const float* w, size_t n, float* scale, float* shift) {
  HWY_DYNAMIC_DISPATCH(SearchGroupTargeted)(s, x, w, n, scale, shift);
}
void ChooseCodes(const SchemeSearch& s, const float* x, size_t n, float scale, float shift, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(ChooseCodesTargeted)(s, x, n, scale, shift, codes);
}
void RuleRow(const SchemeSearch& s, const float* x, size_t cols, float* scale, float* shift, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(RuleRowTargeted)(s, x, cols, scale, shift, codes);
}

GroupScale ScaleByRule(const SchemeSearch& s, const GroupRange& range) { return RuleScale(s, range); }
void CodesByRule(const SchemeSearch& s, const GroupScale& scale, const float* x, size_t n, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(CodesByRuleTargeted)(s, scale, x, n, codes);
}
GroupRange RangeOf(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(RangeOfTargeted)(x, n); }

}  // namespace edgequant
#endif
