// Costs of all points of a grid, 16 bits each, a vector of weights per lane.
#if defined(EDGEQUANT_GRID_SCAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_SCAN_INL_H_
#undef EDGEQUANT_GRID_SCAN_INL_H_
#else
#define EDGEQUANT_GRID_SCAN_INL_H_
#endif

#include <hwy/highway.h>

#include <type_traits>

#include "kernels/cpu/grid_work.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D16 = hn::CappedTag<int16_t, kGridLanes>;
using U16 = hn::RebindToUnsigned<D16>;
using V16 = hn::Vec<D16>;
using W16 = hn::Vec<U16>;

// (u - value)^2 in units of 2^-15; both are within [-1, 1), a difference beyond that is clipped.
HWY_INLINE V16 Cost(V16 u, V16 value) {
  const V16 difference = hn::SaturatedSub(u, value);
  return hn::MulFixedPoint15(difference, difference);
}

// The costs of each quarter's combinations of levels, for the vector whose first weight is `row`.
template <int kDim, int kLevels>
void FillQuarters(GridWork& g, int row) {
  const D16 d;
  const U16 du;
  for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
    for (int i = 0; i < 4; ++i) {
      const int first = row + i * kDim / 4, second = first + 1;
      const auto cost = [&](int weight, int l) HWY_ATTR {
        const V16 value = hn::MulFixedPoint15(hn::Load(d, g.root[weight] + c), hn::Load(d, g.level[l] + c));
        return Cost(hn::Load(d, g.u[weight] + c), value);
      };
      if constexpr (kDim == 4) {
        for (int l = 0; l < kLevels; ++l) hn::Store(hn::BitCast(du, cost(first, l)), du, g.quarter[i][l] + c);
      } else {
        for (int l = 0; l < kLevels; ++l) hn::Store(cost(first, l), d, g.cost[l] + c);
        for (int l = 0; l < kLevels; ++l) {
          const W16 c1 = hn::BitCast(du, cost(second, l));
          for (int m = 0; m < kLevels; ++m)
            hn::Store(hn::SaturatedAdd(hn::BitCast(du, hn::Load(d, g.cost[m] + c)), c1), du,
                      g.quarter[i][l * kLevels + m] + c);
        }
      }
    }
  }
}

// A row of a table, by its offset in bytes.
template <class T>
HWY_INLINE const T* Row(const T* table, size_t offset) {
  return reinterpret_cast<const T*>(reinterpret_cast<const uint8_t*>(table) + offset);
}

// Costs of 16 bits, or (quicker and coarse, but enough to compare scales) of 8.
template <class T>
using CostTag = hn::CappedTag<T, kGridLanes>;
// 255 stands for half the full scale; larger costs are clipped.
constexpr int kCoarse = 6;

// The quarters' costs as the scan reads them.
HWY_INLINE const uint16_t* QuarterRow(const GridWork& g, int quarter, int entry, uint16_t) {
  return g.quarter[quarter][entry];
}
HWY_INLINE const uint8_t* QuarterRow(const GridWork& g, int quarter, int entry, uint8_t) {
  return g.coarse[quarter][entry];
}

inline void FillCoarse(GridWork& g, int entries) {
  const U16 d;
  const D16 di;
  const hn::Rebind<uint8_t, D16> d8;
  for (int q = 0; q < 4; ++q)
    for (int i = 0; i < entries; ++i)
      for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
        const W16 rounded = hn::SaturatedAdd(hn::Load(d, g.quarter[q][i] + c), hn::Set(d, 1 << (kCoarse - 1)));
        hn::Store(hn::DemoteTo(d8, hn::BitCast(di, hn::ShiftRight<kCoarse>(rounded))), d8, g.coarse[q][i] + c);
      }
}

// The second half's table from its two quarters, and the merged rows.
template <int kQuarter, class T>
void FillTable(const GridIndex& index, GridWork& g) {
  const CostTag<T> d;
  constexpr size_t kStep = GridIndex::kRowBytes / sizeof(T);
  const GridIndex::Merge* HWY_RESTRICT merge = index.merges.data();
  const size_t merges = index.merges.size();
  for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
    T* const t = reinterpret_cast<T*>(g.table) + c;
    T* to = t;
    for (int j = 0; j < kQuarter; ++j) {
      const auto s = hn::Load(d, QuarterRow(g, 3, j, T()) + c);
      for (int i = 0; i < kQuarter; ++i, to += kStep)
        hn::Store(hn::SaturatedAdd(hn::Load(d, QuarterRow(g, 2, i, T()) + c), s), d, to);
    }
    HWY_UNROLL(4)
    for (size_t k = 0; k < merges; ++k, to += kStep)
      hn::Store(hn::Min(hn::Load(d, Row(t, merge[k].a)), hn::Load(d, Row(t, merge[k].b))), d, to);
  }
}

// The least of `length` rows of a table. kLength: the length, 0 if not known.
template <int kLength, class D, class T>
HWY_INLINE hn::Vec<D> Least(D d, const T* HWY_RESTRICT t, const uint16_t* HWY_RESTRICT members, int length) {
  auto m = hn::Load(d, Row(t, members[0]));
  const int n = kLength ? kLength : length;
  HWY_UNROLL(16)
  for (int k = 1; k < n; ++k) m = hn::Min(m, hn::Load(d, Row(t, members[k])));
  return m;
}

// Calls body<length>(class, first run) for each class of runs, with 0 for lengths that have no body of their own.
template <class Body>
HWY_INLINE void ForEachClass(const GridIndex& index, const Body& body) {
  const GridIndex::Run* run = index.runs.data();
  for (const GridIndex::RunClass& cl : index.classes) {
    switch (cl.length) {
      // clang-format off
#define EDGEQUANT_X(n) case n: body(std::integral_constant<int, n>(), cl, run); break;
      EDGEQUANT_X(1) EDGEQUANT_X(2) EDGEQUANT_X(3) EDGEQUANT_X(4) EDGEQUANT_X(5) EDGEQUANT_X(6) EDGEQUANT_X(7)
      EDGEQUANT_X(8) EDGEQUANT_X(9) EDGEQUANT_X(10) EDGEQUANT_X(11) EDGEQUANT_X(12) EDGEQUANT_X(13) EDGEQUANT_X(14)
      EDGEQUANT_X(15) EDGEQUANT_X(16)
#undef EDGEQUANT_X
      // clang-format on
                  default : body(std::integral_constant<int, 0>(), cl, run);
    }
    run += cl.count;
  }
}

// The least cost over all points for the vector whose first weight is `row`, into g.best. T: of how many bits.
template <int kDim, int kLevels, class T>
void LeastCost(const GridIndex& index, GridWork& g, int row) {
  constexpr int kQuarter = kDim == 8 ? kLevels * kLevels : kLevels;
  FillQuarters<kDim, kLevels>(g, row);
  if constexpr (sizeof(T) == 1) FillCoarse(g, kQuarter);
  FillTable<kQuarter, T>(index, g);
  const CostTag<T> d;
  for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
    const T* table = reinterpret_cast<const T*>(g.table) + c;
    auto best = hn::Set(d, T(~T(0)));
    ForEachClass(index, [&](auto length, const GridIndex::RunClass& cl, const GridIndex::Run* run) HWY_ATTR {
      for (int r = 0; r < cl.count; ++r, ++run) {
        const auto first = hn::SaturatedAdd(hn::Load(d, QuarterRow(g, 0, run->first, T()) + c),
                                            hn::Load(d, QuarterRow(g, 1, run->second, T()) + c));
        const auto second = Least<length()>(d, table, index.members.data() + run->begin, cl.length);
        best = hn::Min(best, hn::SaturatedAdd(first, second));
      }
    });
    if constexpr (sizeof(T) == 1) {
      alignas(64) uint8_t bytes[kGridLanes];
      hn::Store(best, d, bytes + c);
      for (size_t l = 0; l < hn::Lanes(d); ++l) g.best[c + l] = uint16_t(bytes[c + l] << kCoarse);
    } else {
      hn::Store(best, d, g.best + c);
    }
  }
}

// The point of least cost itself, for the vector v whose first weight is `row`: its halves to g.key[v][0] and
// g.half[v][0]. The scan keeps which run is best and what its second half costs; the entry is then whichever costs just
// that.
template <int kDim, int kLevels>
void LeastPoint(const GridIndex& index, GridWork& g, int row, int v) {
  constexpr int kQuarter = kDim == 8 ? kLevels * kLevels : kLevels, kHalf = kQuarter * kQuarter;
  FillQuarters<kDim, kLevels>(g, row);
  FillTable<kQuarter, uint16_t>(index, g);
  const U16 d;
  constexpr size_t kStep = GridIndex::kRowBytes / sizeof(uint16_t);
  alignas(64) uint16_t half[kGridLanes], entry[kGridLanes];
  for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
    const uint16_t* table = g.table + c;
    W16 best = hn::Set(d, 65535), best_half = hn::Set(d, index.runs[0].half), rest = best;
    ForEachClass(index, [&](auto length, const GridIndex::RunClass& cl, const GridIndex::Run* run) HWY_ATTR {
      for (int r = 0; r < cl.count; ++r, ++run) {
        const W16 first =
            hn::SaturatedAdd(hn::Load(d, g.quarter[0][run->first] + c), hn::Load(d, g.quarter[1][run->second] + c));
        const W16 second = Least<length()>(d, table, index.members.data() + run->begin, cl.length);
        const W16 sum = hn::SaturatedAdd(first, second);
        const auto better = hn::Lt(sum, best);
        best = hn::Min(sum, best);
        best_half = hn::IfThenElse(better, hn::Set(d, run->half), best_half);
        rest = hn::IfThenElse(better, second, rest);
      }
    });
    W16 at = hn::Zero(d);
    for (int k = 0; k < kHalf; ++k)
      at = hn::IfThenElse(hn::Eq(hn::Load(d, table + size_t(k) * kStep), rest), hn::Set(d, uint16_t(k)), at);
    hn::Store(best_half, d, half + c);
    hn::Store(at, d, entry + c);
  }
  for (int j = 0; j < kGridLanes; ++j) {
    const int32_t* points = &index.row[size_t(half[j]) * kHalf];
    int k = entry[j];
    if (HWY_UNLIKELY(points[k] < 0)) {  // an entry of other runs that happens to cost the same
      int best = -1;
      for (k = 0; k < kHalf; ++k)
        if (points[k] >= 0 && (best < 0 || g.table[size_t(k) * kStep + j] < g.table[size_t(best) * kStep + j]))
          best = k;
      k = best;
    }
    g.key[v][0][j] = k;
    g.half[v][0][j] = half[j];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif
