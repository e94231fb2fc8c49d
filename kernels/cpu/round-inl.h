// Encoding without a search: 16 groups at a time, so that what a group needs once (a division, a number to round) is done
// for all of them in one vector.
#if defined(EDGEQUANT_ROUND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_INL_H_
#undef EDGEQUANT_ROUND_INL_H_
#else
#define EDGEQUANT_ROUND_INL_H_
#endif

#include "kernels/cpu/round_float-inl.h"
#include "kernels/cpu/round_legacy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

constexpr uint32_t kNotFinite = 0x7fc00000;

// The numbers of the groups at x; false if a weight is not finite. `most` grows to the greatest magnitude.
template <const Block& kB>
HWY_INLINE bool FindNumbers(const float* HWY_RESTRICT x, Numbers& n, VF& most) {
  if constexpr (IsE2M1(kB)) return FloatNumbers<kB, ShapeOf(kB).group>(x, n, most);
  else return LegacyNumbers<kB, ShapeOf(kB).group>(x, n, most);
}
template <const Block& kB>
HWY_INLINE void Emit(const float* HWY_RESTRICT x, const Numbers& n, uint8_t* HWY_RESTRICT out) {
  if constexpr (IsE2M1(kB)) EmitFloats<kB>(x, n, out);
  else EmitLegacy<kB>(x, n, out);
}

// Bits of the greatest magnitude, or those of NaN where a weight is not finite: then the blocks are not all written.
template <const Block& kB>
HWY_NOINLINE uint32_t RoundBlocks(const float* HWY_RESTRICT x, size_t blocks, uint8_t* HWY_RESTRICT out) {
  constexpr size_t kTurn = kColumns / ShapeOf(kB).groups;  // blocks
  constexpr size_t kWeights = kTurn * kB.n, kBytes = kTurn * kB.bytes;
  const DF d;
  VF most = hn::Zero(d);
  Numbers n[2];
  const size_t turns = blocks / kTurn, rest = blocks % kTurn;
  // Codes wait for their numbers, which take long to follow from the last weight: those of the next turn come before.
  if (turns != 0 && !FindNumbers<kB>(x, n[0], most)) return kNotFinite;
  for (size_t t = 0; t < turns; ++t, x += kWeights, out += kBytes) {
    if (t + 1 < turns && !FindNumbers<kB>(x + kWeights, n[(t + 1) % 2], most)) return kNotFinite;
    Emit<kB>(x, n[t % 2], out);
  }
  if (rest != 0) {
    alignas(64) float last[kWeights] = {};
    uint8_t bytes[kBytes];
    memcpy(last, x, rest * kB.n * sizeof(float));
    if (!FindNumbers<kB>(last, n[0], most)) return kNotFinite;
    Emit<kB>(last, n[0], bytes);
    memcpy(out, bytes, rest * kB.bytes);
  }
  return BitsOfFloat(hn::GetLane(hn::MaxOfLanes(d, most))) & 0x7fffffff;  // it may be -0
}

HWY_NOINLINE uint32_t LargestMagnitude(const float* HWY_RESTRICT x, size_t n) {
  const DF d;
  const DI di;
  const VI magnitude = hn::Set(di, 0x7fffffff);
  VI most0 = hn::Zero(di), most1 = most0;
  const size_t lanes = size_t(LanesF());
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    most0 = hn::Max(most0, hn::And(hn::BitCast(di, hn::LoadU(d, x + i)), magnitude));
    most1 = hn::Max(most1, hn::And(hn::BitCast(di, hn::LoadU(d, x + i + lanes)), magnitude));
  }
  uint32_t most = uint32_t(hn::GetLane(hn::MaxOfLanes(di, hn::Max(most0, most1))));
  for (; i < n; ++i) most = HWY_MAX(most, BitsOfFloat(x[i]) & 0x7fffffff);
  return most;
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_INL_H_
