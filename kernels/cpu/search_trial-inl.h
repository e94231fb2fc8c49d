// Trial scales in 16-bit fixed point: a step of the search that only ranks its starting points. The sums are whole
// numbers, so every target ranks alike. x86 keeps two rows of a tile side by side and multiplies and adds pairs.
#if defined(EDGEQUANT_SEARCH_TRIAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_TRIAL_INL_H_
#undef EDGEQUANT_SEARCH_TRIAL_INL_H_
#else
#define EDGEQUANT_SEARCH_TRIAL_INL_H_
#endif

#include "kernels/cpu/search_grid-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

#undef EDGEQUANT_TRIAL_PAIRS
#if HWY_TARGET == HWY_SCALAR || !HWY_ARCH_X86
#define EDGEQUANT_TRIAL_PAIRS 0
using DT = DI;  // one weight per 32-bit lane
#else
#define EDGEQUANT_TRIAL_PAIRS 1
using DT = hn::Repartition<int16_t, DF>;  // lane 2 j: an even row of column j, 2 j + 1: the odd row below
#endif
using VT = hn::Vec<DT>;
using TrialLane = hn::TFromD<DT>;
constexpr int kRowsPerTrial = EDGEQUANT_TRIAL_PAIRS ? 2 : 1;

// Positions on the grid in fixed point: 32767 is kReach, the farthest one. A value is the least one plus the gaps whose
// limits lie below the position. For lookups the positions are cut into 32 cells with at most one limit each.
constexpr float kReachSteps = 2;  // beyond the end of the grid, in steps
constexpr int kCells = 32, kCellShift = 11;
template <const Block& kB>
struct TrialTable {
  using Grid = TableValues<kB>;
  static constexpr float kReach = (-Grid::low > Grid::high ? -Grid::low : Grid::high) + kReachSteps * Grid::step;
  TrialLane least = TrialLane(Grid::low), limit[15] = {}, gap[15] = {};
  alignas(64) TrialLane cell_least[kCells] = {},
                        cell_limit[kCells] = {}, cell_gap[kCells] = {};  // cell k of position >> kCellShift at k & 31
  constexpr TrialTable() {
    for (int i = 0; i < 15; ++i) {
      const float low = Grid::kTable.value[i], high = Grid::kTable.value[i + 1],
                  middle = (low + high) / 2 * (32767 / kReach);
      limit[i] = TrialLane(middle < 0 ? middle - 0.5f : middle + 0.5f);
      gap[i] = TrialLane(high - low);
    }
    for (int k = -kCells / 2; k < kCells / 2; ++k) {
      TrialLane value = least, within = 32767, step = 0;
      for (int i = 0; i < 15; ++i) {
        if (limit[i] >> kCellShift == k) within = limit[i], step = gap[i];
        if (limit[i] >> kCellShift < k) value = TrialLane(value + gap[i]);
      }
      cell_least[k & (kCells - 1)] = value;
      cell_limit[k & (kCells - 1)] = within;
      cell_gap[k & (kCells - 1)] = step;
    }
  }
  static constexpr bool OneLimitPerCell() {
    const TrialTable t;
    for (int i = 0; i + 1 < 15; ++i)
      if (t.limit[i] >> kCellShift == t.limit[i + 1] >> kCellShift) return false;
    return true;
  }
};

template <const Block& kB>
constexpr bool TableOfBytes() {
  if (kB.map.kind != MapKind::kTable || ShapeOf(kB).codes != 16) return false;
  for (int c = 0; c < 16; ++c) {
    const float v = ValueOf(kB, c);
    if (v != float(int(v)) || v < -127 || v > 127) return false;
  }
  return true;
}

// Weights of the errors have so many counts that 32-bit sums of a group do not overflow.
template <const Block& kB, int S>
struct TrialRange {
  static constexpr float kLargest = 127;
  static constexpr int kWeight = int(2147483647.0 / (S * kLargest * kLargest)), kProduct = 32767;
};

template <int S>
struct alignas(64) TrialTile {
  TrialLane x[S / kRowsPerTrial][kRowsPerTrial * kColumns], w[S / kRowsPerTrial][kRowsPerTrial * kColumns],
      wx[S / kRowsPerTrial][kRowsPerTrial * kColumns];
};

HWY_INLINE void StoreTrial([[maybe_unused]] VI even, [[maybe_unused]] VI odd, TrialLane* to) {
#if EDGEQUANT_TRIAL_PAIRS
  hn::Store(hn::BitCast(DT(), hn::Or(hn::And(even, hn::Set(DI(), 0xffff)), hn::ShiftLeft<16>(odd))), DT(), to);
#else
  hn::Store(even, DT(), to);
#endif
}

// The columns [c, c + lanes), x over their extreme weight.
template <const Block& kB, int S>
HWY_INLINE void FillTrial(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, VF inverse_extreme,
                          TrialTile<S>& t) {
  using Range = TrialRange<kB, S>;
  const DF d;
  VF most_w = hn::Zero(d), most_wx = hn::Zero(d);
  for (int i = 0; i < S; ++i) {
    const VF wv = hn::Load(d, w + i * kColumns);
    most_w = hn::Max(most_w, wv);
    most_wx = hn::Max(most_wx, hn::Abs(hn::Mul(wv, hn::Load(d, x + i * kColumns))));
  }
  const VF unit_x = hn::Mul(inverse_extreme, hn::Set(d, 32767.0f));
  const VF unit_w = hn::Mul(Inverse(d, most_w), hn::Set(d, float(Range::kWeight)));
  const VF unit_wx = hn::Mul(Inverse(d, most_wx), hn::Set(d, float(Range::kProduct)));
  for (int r = 0; r < S / kRowsPerTrial; ++r) {
    VI xi[2], wi[2], wxi[2];
    for (int k = 0; k < kRowsPerTrial; ++k) {
      const int i = r * kRowsPerTrial + k;
      const VF xv = hn::Load(d, x + i * kColumns), wv = hn::Load(d, w + i * kColumns);
      xi[k] = hn::NearestInt(hn::Mul(xv, unit_x));
      wi[k] = hn::NearestInt(hn::Mul(wv, unit_w));
      wxi[k] = hn::NearestInt(hn::Mul(hn::Mul(wv, xv), unit_wx));
    }
    StoreTrial(xi[0], xi[kRowsPerTrial - 1], t.x[r]);
    StoreTrial(wi[0], wi[kRowsPerTrial - 1], t.w[r]);
    StoreTrial(wxi[0], wxi[kRowsPerTrial - 1], t.wx[r]);
  }
}

// The value nearest to position x * factor.
template <const Block& kB>
HWY_INLINE VT TrialValue(VT x, VT factor) {
  static constexpr TrialTable<kB> kTable;
  static_assert(TrialTable<kB>::OneLimitPerCell());
  [[maybe_unused]] const DT d;
#if EDGEQUANT_TRIAL_PAIRS
  const VT at = hn::MulFixedPoint15(x, factor);
#else
  const VT at = hn::ShiftRight<15>(hn::Add(hn::Mul(x, factor), hn::Set(d, 1 << 14)));
#endif
#if EDGEQUANT_TRIAL_PAIRS && HWY_TARGET <= HWY_AVX3
  const auto lookup = [cell = hn::ShiftRight<kCellShift>(at)](const TrialLane* table)
                          HWY_ATTR {  // of the lowest 5 bits
                            return VT{_mm512_permutexvar_epi16(cell.raw, hn::Load(DT(), table).raw)};
                          };
  const VT least = lookup(kTable.cell_least);
  const auto above = hn::Gt(at, lookup(kTable.cell_limit));
  return hn::IfThenElse(above, hn::Add(least, lookup(kTable.cell_gap)), least);
#else
  VT value = hn::Set(d, kTable.least);
  for (int i = 0; i < 15; ++i)
    value = hn::Add(value, hn::IfThenElseZero(hn::Gt(at, hn::Set(d, kTable.limit[i])), hn::Set(d, kTable.gap[i])));
  return value;
#endif
}

HWY_INLINE VI AddProducts(VT a, VT b, VI sum) {
#if EDGEQUANT_TRIAL_PAIRS
  VI rest = hn::Zero(DI());
  return hn::ReorderWidenMulAccumulate(DI(), a, b, sum, rest);
#else
  return hn::Add(hn::Mul(a, b), sum);
#endif
}

// The factor of inverse_extreme, of those in `position` (places of the extreme weight on the grid), under which the
// values explain most of the weighted squares.
template <const Block& kB, int S>
HWY_INLINE VF BestTrial(const TrialTile<S>& t, const float* position, int trials) {
  const DF d;
  VF best = hn::Set(d, position[0]), best_gain = hn::Zero(d);
  for (int k = 0; k < trials; k += 2) {
    VI ll[2] = {hn::Zero(DI()), hn::Zero(DI())}, xl[2] = {hn::Zero(DI()), hn::Zero(DI())};
    VT factor[2];
    for (int j = 0; j < 2; ++j)
      factor[j] = hn::Set(DT(), TrialLane(position[k + j] * (32767 / TrialTable<kB>::kReach)));
    for (int r = 0; r < S / kRowsPerTrial; ++r) {
      const VT x = hn::Load(DT(), t.x[r]), w = hn::Load(DT(), t.w[r]), wx = hn::Load(DT(), t.wx[r]);
      for (int j = 0; j < 2; ++j) {
        const VT q = TrialValue<kB>(x, factor[j]);
        ll[j] = AddProducts(w, hn::Mul(q, q), ll[j]);
        xl[j] = AddProducts(wx, q, xl[j]);
      }
    }
    for (int j = 0; j < 2; ++j) {
      const VF a = hn::ConvertTo(d, ll[j]), b = hn::ConvertTo(d, xl[j]), gain = hn::Mul(hn::Mul(b, b), Inverse(d, a));
      // the margin keeps the first one on ties: constant groups then share one scale
      const auto better = hn::Gt(gain, hn::Mul(best_gain, hn::Set(d, 1.0000005f)));
      best_gain = hn::IfThenElse(better, gain, best_gain);
      best = hn::IfThenElse(better, hn::Set(d, position[k + j]), best);
    }
  }
  return best;
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_TRIAL_INL_H_
