// Rounding to the values that codes can take. A grid has Value(x * inverse scale), the nearest value, and
// Code(...), the stored code. Whole-number grids take the magic-number road, tables a binary descent.
#if defined(EDGEQUANT_SEARCH_GRID_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_GRID_INL_H_
#undef EDGEQUANT_SEARCH_GRID_INL_H_
#else
#define EDGEQUANT_SEARCH_GRID_INL_H_
#endif

#include <type_traits>

#include "format/shape.h"
#include "kernels/cpu/search_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: a sum with it keeps no fraction, rounded to nearest even
constexpr int32_t kMagicBits = 0x4b400000;

// Codes 0, 1, 2 ... stand for low, low + 1, low + 2 ...
template <const Block& kB>
struct WholeNumbers {
  static constexpr float low = ShapeOf(kB).low, high = ShapeOf(kB).high, step = 1;
  static HWY_INLINE VF Magic(DF d, VF x, VF inverse) {
    const VF v = hn::MulAdd(x, inverse, hn::Set(d, kMagic));
    return hn::Min(hn::Max(v, hn::Set(d, kMagic + low)), hn::Set(d, kMagic + high));
  }
  static HWY_INLINE VF Value(DF d, VF x, VF inverse) { return hn::Sub(Magic(d, x, inverse), hn::Set(d, kMagic)); }
  static HWY_INLINE VI Code(DF d, VF x, VF inverse) {  // the sum's low bits count from kMagic's
    constexpr int32_t zero = kMagicBits + (kB.codes[0].is_signed ? 0 : int32_t(low));
    const VI code = hn::Sub(hn::BitCast(DI(), Magic(d, x, inverse)), hn::Set(DI(), zero));
    return kB.codes[0].is_signed ? hn::And(code, hn::Set(DI(), 255)) : code;
  }
};

// A table's values in order, and the tree of limits between neighbours: level l has 2^l limits, node k of it decides
// between its children 2k and 2k + 1 of the next level; past the last level k counts the sorted values.
struct SortedTable {
  int count = 0, levels = 0;
  float low_step = 0;
  alignas(64) float value[16] = {};
  alignas(64) float code[16] = {};  // as magic numbers: the code is in the low bits
  alignas(64) float limit[4][16] = {};
};
constexpr SortedTable SortTable(const Block& b) {
  SortedTable t;
  for (int c = 0; c < CodesOf(b); ++c) {
    const float v = ValueOf(b, c);
    int at = 0;
    while (at < t.count && t.value[at] < v) ++at;
    if (at < t.count && t.value[at] == v) continue;  // E2M1 has two zeros: the first is written
    for (int k = t.count; k > at; --k) {
      t.value[k] = t.value[k - 1];
      t.code[k] = t.code[k - 1];
    }
    t.value[at] = v;
    t.code[at] = kMagic + float(c);
    ++t.count;
  }
  for (int k = t.count; k < 16; ++k) {
    t.value[k] = t.value[t.count - 1];
    t.code[k] = t.code[t.count - 1];
  }
  while (1 << t.levels < t.count) ++t.levels;
  for (int l = 0; l < t.levels; ++l)
    for (int k = 0; k < 16; ++k) {
      const int width = 1 << (t.levels - l), below = (k % (1 << l)) * width + width / 2 - 1;
      t.limit[l][k] = below + 1 < t.count ? (t.value[below] + t.value[below + 1]) / 2 : 3e38f;
    }
  t.low_step = (t.value[t.count - 1] - t.value[0]) / float(t.count - 1);
  return t;
}

template <const Block& kB>
struct TableValues {
  static constexpr SortedTable kTable = SortTable(kB);
  static constexpr float low = ShapeOf(kB).low, high = ShapeOf(kB).high, step = kTable.low_step;

  // table[i], i < size; tables are 16 entries long, the first `size` repeated.
  template <int kSize>
  static HWY_INLINE VF Lookup(DF d, const float* HWY_RESTRICT table, VI i) {
    constexpr int lanes = int(hn::MaxLanes(DF()));
    if constexpr (lanes >= kSize && lanes > 1) {
      return hn::TableLookupLanes(hn::Load(d, table), hn::IndicesFromVec(d, i));
    } else if constexpr (lanes == 8 && kSize == 16) {
      const DI di;
      const auto low3 = hn::IndicesFromVec(d, hn::And(i, hn::Set(di, 7)));
      const auto upper = hn::RebindMask(d, hn::Gt(i, hn::Set(di, 7)));
      return hn::IfThenElse(upper, hn::TableLookupLanes(hn::Load(d, table + 8), low3),
                            hn::TableLookupLanes(hn::Load(d, table), low3));
    } else {
      return hn::GatherIndex(d, table, i);
    }
  }
  static HWY_INLINE VI Twice(VI k, VF v, VF limit) {  // 2k, + 1 where v is above the limit
    const DI di;
    return hn::Sub(hn::Add(k, k), hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(v, limit))));
  }
  static HWY_INLINE VI Rank([[maybe_unused]] DF d, VF v) {
#if HWY_TARGET == HWY_SCALAR  // a lookup is no bargain here (and g++ 12 breaks the descent when it vectorizes it)
    const float f = hn::GetLane(v);
    int rank = 0;
    for (int i = 0; i + 1 < kTable.count; ++i) rank += f > (kTable.value[i] + kTable.value[i + 1]) / 2;
    return hn::Set(DI(), rank);
#else
    VI k = Twice(hn::Zero(DI()), v, hn::Set(d, kTable.limit[0][0]));
    if constexpr (kTable.levels > 1) k = Twice(k, v, Lookup<2>(d, kTable.limit[1], k));
    if constexpr (kTable.levels > 2) k = Twice(k, v, Lookup<4>(d, kTable.limit[2], k));
    if constexpr (kTable.levels > 3) k = Twice(k, v, Lookup<8>(d, kTable.limit[3], k));
    return k;
#endif
  }
  static HWY_INLINE VF Value(DF d, VF x, VF inverse) {
    if constexpr (kTable.levels == 1)
      return hn::IfThenElse(hn::Gt(hn::Mul(x, inverse), hn::Set(d, kTable.limit[0][0])), hn::Set(d, high),
                            hn::Set(d, low));
    return Lookup<16>(d, kTable.value, Rank(d, hn::Mul(x, inverse)));
  }
  static HWY_INLINE VI Code(DF d, VF x, VF inverse) {
    const VF code = Lookup<16>(d, kTable.code, Rank(d, hn::Mul(x, inverse)));
    return hn::Sub(hn::BitCast(DI(), code), hn::Set(DI(), kMagicBits));
  }
};

template <const Block& kB>
using GridOf = std::conditional_t<kB.map.kind == MapKind::kTable, TableValues<kB>, WholeNumbers<kB>>;

// The grid of formats with a minimum: whole numbers from 0; `start` is minimum * inverse. (Rounding by the magic number
// would swallow the fraction of the minimum.)
template <const Block& kB>
HWY_INLINE VF AffineValue(DF d, VF x, VF inverse, VF start) {
  return hn::Round(hn::Min(hn::Max(hn::MulAdd(x, inverse, start), hn::Zero(d)), hn::Set(d, ShapeOf(kB).high)));
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_GRID_INL_H_
