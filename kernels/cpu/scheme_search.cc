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

// Calls body(first group, groups, tile) for each 16 groups of the rows.
template <class Body>
HWY_INLINE void ForTiles(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
                         const Body& body) {
  const size_t group = s.scheme->GroupCols(cols), per_row = (cols + group - 1) / group, total = rows * per_row;
  Lines xs(group * kColumns), ws(group * kColumns), short_x(group * kColumns), short_w(group * kColumns);
  const std::vector<float> ones(group, 1.0f), zeros(group, 0.0f);
  GroupTile tile;
  tile.n = group;
  tile.x = xs.data();
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
    if (importance || ragged) FillColumns(weight, group, ws.data());
    tile.w = importance || ragged ? ws.data() : nullptr;
    body(at, HWY_MIN(size_t(kColumns), total - at), tile);
  }
}

template <class V>
HWY_NOINLINE void SearchTiles(const V& values, const SchemeSearch& s, const float* x, size_t rows, size_t cols,
                              const float* importance, float* scale, float* shift) {
  ForTiles(s, x, rows, cols, importance, [&](size_t at, size_t n, const GroupTile& tile) HWY_ATTR {
    float found_scale[kColumns], found_shift[kColumns];
    Searcher<V>(s, values, tile).Run(found_scale, found_shift);
    memcpy(scale + at, found_scale, n * sizeof(float));
    memcpy(shift + at, found_shift, n * sizeof(float));
  });
}

void SearchScalesTargeted(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
                          float* scale, float* shift) {
  WithValues(*s.values, [&](const auto& v) { SearchTiles(v, s, x, rows, cols, importance, scale, shift); });
}

template <class V>
HWY_NOINLINE void SumTiles(const V& values, const SchemeSearch& s, const float* x, size_t rows, size_t cols,
                           const float* importance, const float* scale, const float* shift, GroupSums* sums) {
  ForTiles(s, x, rows, cols, importance, [&](size_t at, size_t n, const GroupTile& tile) HWY_ATTR {
    Numbers tile_scale = {}, tile_shift = {};
    memcpy(tile_scale.v, scale + at, n * sizeof(float));
    memcpy(tile_shift.v, shift + at, n * sizeof(float));
    GroupSums found[kColumns];
    Searcher<V>(s, values, tile).SumsOf(tile_scale, tile_shift, found);
    memcpy(sums + at, found, n * sizeof(GroupSums));
  });
}

void SumGroupsTargeted(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
                       const float* scale, const float* shift, GroupSums* sums) {
  WithValues(*s.values, [&](const auto& v) { SumTiles(v, s, x, rows, cols, importance, scale, shift, sums); });
}

size_t BestEndTargeted(const float* v, size_t n, float inverse, const float* ends, size_t count, float low,
                       float high) {
  const DF d;
  const VF lows = hn::Set(d, low), highs = hn::Set(d, high);
  float least = INFINITY;
  size_t best = 0;
  for (size_t k = 0; k < count; k += size_t(LanesF())) {
    const VF end = hn::LoadU(d, ends + k), by = hn::Mul(end, hn::Set(d, inverse));
    VF sum = hn::Zero(d);
    for (size_t i = 0; i < n; ++i) {
      const VF u = hn::Mul(hn::Set(d, v[i]), by), gap = hn::Sub(hn::Round(hn::Min(hn::Max(u, lows), highs)), u);
      sum = hn::MulAdd(gap, gap, sum);
    }
    alignas(64) float error[kColumns];
    hn::Store(hn::Div(sum, hn::Mul(end, end)), d, error);
    for (size_t j = 0; j < size_t(LanesF()); ++j)
      if (error[j] < least) least = error[j], best = k + j;
  }
  return best;
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

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchScalesTargeted);
HWY_EXPORT(SearchGroupTargeted);
HWY_EXPORT(SumGroupsTargeted);
HWY_EXPORT(BestEndTargeted);
HWY_EXPORT(ChooseCodesTargeted);

void SearchScales(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
                  float* scale, float* shift) {
  HWY_DYNAMIC_DISPATCH(SearchScalesTargeted)(s, x, rows, cols, importance, scale, shift);
}
void SumGroups(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
               const float* scale, const float* shift, GroupSums* sums) {
  HWY_DYNAMIC_DISPATCH(SumGroupsTargeted)(s, x, rows, cols, importance, scale, shift, sums);
}
size_t BestEnd(const float* v, size_t n, float inverse, const float* ends, size_t count, float low, float high) {
  return HWY_DYNAMIC_DISPATCH(BestEndTargeted)(v, n, inverse, ends, count, low, high);
}
void SearchGroup(const SchemeSearch& s, const float* x, const float* w, size_t n, float* scale, float* shift) {
  HWY_DYNAMIC_DISPATCH(SearchGroupTargeted)(s, x, w, n, scale, shift);
}
void ChooseCodes(const SchemeSearch& s, const float* x, size_t n, float scale, float shift, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(ChooseCodesTargeted)(s, x, n, scale, shift, codes);
}

}  // namespace edgequant
#endif
