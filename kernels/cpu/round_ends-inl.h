// The extreme weights of 16 groups at once: each group folds to one vector, and a tree of interleaved folds puts the 16
// results side by side, at three operations per group where a horizontal fold takes a dozen.
#if defined(EDGEQUANT_ROUND_ENDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_ENDS_INL_H_
#undef EDGEQUANT_ROUND_ENDS_INL_H_
#else
#define EDGEQUANT_ROUND_ENDS_INL_H_
#endif

#include "kernels/cpu/compat.h"
#include "kernels/cpu/search_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

struct Least {
  HWY_INLINE VF operator()(VF a, VF b) const { return hn::Min(a, b); }
};
struct Greatest {
  HWY_INLINE VF operator()(VF a, VF b) const { return hn::Max(a, b); }
};
struct GreatestBits {  // of magnitudes, NaN above all
  HWY_INLINE VF operator()(VF a, VF b) const {
    return hn::BitCast(DF(), hn::Max(hn::BitCast(DI(), a), hn::BitCast(DI(), b)));
  }
};
struct TotalBits {  // of whole numbers
  HWY_INLINE VF operator()(VF a, VF b) const {
    return hn::BitCast(DF(), hn::Add(hn::BitCast(DI(), a), hn::BitCast(DI(), b)));
  }
};
struct Total {
  HWY_INLINE VF operator()(VF a, VF b) const { return hn::Add(a, b); }
};

// The first pass over the weights reads memory from one end to the other: where the compiler mixes up its loads, the
// hardware sees no stream, and 8-bit blocks take half as long again.
HWY_INLINE VI LoadInOrder(const float* x) {
  VI v = hn::BitCast(DI(), hn::LoadU(DF(), x));
  EDGEQUANT_PIN(v);
  return v;
}

constexpr int kFour = HWY_TARGET == HWY_SCALAR ? 1 : 4;

// Four groups' vectors: in each 128-bit block the four groups, each folded over the block's lanes.
template <class Fold>
HWY_INLINE VF FoldFour(Fold fold, const VF (&v)[kFour]) {
#if HWY_TARGET == HWY_SCALAR
  (void)fold;
  return v[0];
#else
  const DF d;
  const hn::Repartition<double, DF> d2;
  const auto a = hn::BitCast(d2, fold(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1])));
  const auto b = hn::BitCast(d2, fold(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3])));
  return fold(hn::BitCast(d, hn::InterleaveLower(d2, a, b)), hn::BitCast(d, hn::InterleaveUpper(d2, a, b)));
#endif
}

// These of all groups: the 16 results side by side.
template <class Fold>
HWY_INLINE void FoldSixteen([[maybe_unused]] Fold fold, const VF (&four)[kColumns / kFour], float* HWY_RESTRICT out) {
  const DF d;
#if HWY_TARGET != HWY_SCALAR
  constexpr int lanes = int(hn::MaxLanes(DF()));
  const auto halves = [&](VF a, VF b) HWY_ATTR {
    return fold(hn::ConcatLowerLower(d, b, a), hn::ConcatUpperUpper(d, b, a));
  };
  if constexpr (lanes == 16) {
    const VF a = halves(four[0], four[2]), b = halves(four[1], four[3]);  // blocks of 0 0 2 2 and 1 1 3 3
    hn::Store(fold(hn::OddEvenBlocks(b, a), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(a, b))), d, out);
    return;
  }
  if constexpr (lanes == 8) {
    hn::Store(halves(four[0], four[1]), d, out);
    hn::Store(halves(four[2], four[3]), d, out + 8);
    return;
  }
#endif
  for (int q = 0; q < kColumns / kFour; ++q) hn::Store(four[q], d, out + kFour * q);
}

// get(j), folded, for each group j.
template <class Fold, class Get>
HWY_INLINE void FoldGroups(Fold fold, const Get& get, float* HWY_RESTRICT out) {
  VF four[kColumns / kFour];
#pragma GCC unroll 4
  for (int q = 0; q < kColumns / kFour; ++q) {
    VF v[kFour];
#pragma GCC unroll 4
    for (int k = 0; k < kFour; ++k) v[k] = get(q * kFour + k);
    four[q] = FoldFour(fold, v);
  }
  FoldSixteen(fold, four, out);
}

// The least and the greatest of each group of S weights; false if there is a NaN or an infinity.
template <int S>
HWY_INLINE bool FindEnds(const float* HWY_RESTRICT x, float* HWY_RESTRICT low, float* HWY_RESTRICT high) {
  const DF d;
  const VF zero = hn::Zero(d);
  VF rest[kFour];  // NaN once a number is not finite
  for (VF& r : rest) r = zero;
  VF lows[kColumns / kFour], highs[kColumns / kFour];
#pragma GCC unroll 4
  for (int q = 0; q < kColumns / kFour; ++q) {
    VF least[kFour], greatest[kFour];
#pragma GCC unroll 4
    for (int k = 0; k < kFour; ++k, x += S) {
      VF a = hn::BitCast(d, LoadInOrder(x)), b = a, r = hn::MulAdd(a, zero, rest[k]);
#pragma GCC unroll 8
      for (int i = LanesF(); i < S; i += LanesF()) {
        const VF v = hn::BitCast(d, LoadInOrder(x + i));
        a = hn::Min(a, v);
        b = hn::Max(b, v);
        r = hn::MulAdd(v, zero, r);
      }
      least[k] = a, greatest[k] = b, rest[k] = r;
    }
    lows[q] = FoldFour(Least(), least);
    highs[q] = FoldFour(Greatest(), greatest);
  }
  FoldSixteen(Least(), lows, low);
  FoldSixteen(Greatest(), highs, high);
  for (const VF& r : rest)
    if (!hn::AllTrue(d, hn::Eq(r, zero))) return false;
  return true;
}

// The greatest magnitude of each group of S weights; false if there is a NaN or an infinity.
template <int S>
HWY_INLINE bool FindMagnitudes(const float* HWY_RESTRICT x, float* HWY_RESTRICT most) {
  const DF d;
  const DI di;
  const VI magnitude = hn::Set(di, 0x7fffffff);
  FoldGroups(GreatestBits(), [&](int j) EDGEQUANT_UNROLLED {
    VI a = hn::And(LoadInOrder(x + j * S), magnitude);
#pragma GCC unroll 8
    for (int i = LanesF(); i < S; i += LanesF()) a = hn::Max(a, hn::And(LoadInOrder(x + j * S + i), magnitude));
    return hn::BitCast(d, a);
  }, most);
  VI all = hn::Zero(di);
  for (int c = 0; c < kColumns; c += LanesF()) all = hn::Max(all, hn::BitCast(di, hn::Load(d, most + c)));
  return hn::AllTrue(di, hn::Lt(all, hn::Set(di, 0x7f800000)));
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_ENDS_INL_H_
