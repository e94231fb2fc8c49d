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

// Three passes over 16 groups. The first is false if a weight is not finite; `most` grows to the greatest magnitude.
template <const Block& kB>
struct Passes {
  static constexpr int kGroup = ShapeOf(kB).group;
  static HWY_INLINE bool Find(const float* x, Numbers& n, VF& most) {
    if constexpr (IsE2M1(kB)) return FindByteScales<kB, kGroup>(x, n, most);
    else return LegacyNumbers<kB, kGroup>(x, n, most);
  }
  static HWY_INLINE void Choose([[maybe_unused]] const float* x, [[maybe_unused]] Numbers& n) {
    if constexpr (IsE2M1(kB)) ChooseByteScales<kB, kGroup>(x, n);
  }
  static HWY_INLINE void Emit(const float* x, const Numbers& n, uint8_t* out) {
    if constexpr (IsE2M1(kB)) EmitFloats<kB>(x, n, out);
    else EmitLegacy<kB>(x, n, out);
  }
};

// Bits of the greatest magnitude, or those of NaN where a weight is not finite: then the blocks are not all written.
template <const Block& kB>
HWY_NOINLINE uint32_t RoundBlocks(const float* HWY_RESTRICT x, size_t blocks, uint8_t* HWY_RESTRICT out) {
  using P = Passes<kB>;
  constexpr size_t kTurn = kColumns / ShapeOf(kB).groups;  // blocks
  constexpr size_t kWeights = kTurn * kB.n, kBytes = kTurn * kB.bytes;
  constexpr size_t kAhead = IsE2M1(kB) ? 2 : 1;
  constexpr size_t kOutAhead = 2048;  // bytes
  const DF d;
  VF most = hn::Zero(d);
  Numbers n[3];
  const size_t turns = blocks / kTurn, rest = blocks % kTurn;
  // What a pass finds takes long to follow from the last weight, so each pass works one turn ahead of the next.
  for (size_t t = 0; t < turns + kAhead; ++t, x += kWeights) {
    if (t < turns && !P::Find(x, n[t % 3], most)) return kNotFinite;
    if (kAhead == 2 && t >= 1 && t <= turns) P::Choose(x - kWeights, n[(t + 2) % 3]);
    if (t < kAhead) continue;
    // Stores end in order: one that waits for its line holds up all behind it.
    for (size_t i = 0; i < kBytes; i += 64) hwy::Prefetch(out + kOutAhead + i);
    P::Emit(x - kAhead * kWeights, n[(t + 3 - kAhead) % 3], out);
    out += kBytes;
  }
  if (rest != 0) {
    x -= kAhead * kWeights;
    alignas(64) float last[kWeights] = {};
    uint8_t bytes[kBytes];
    memcpy(last, x, rest * kB.n * sizeof(float));
    if (!P::Find(last, n[0], most)) return kNotFinite;
    P::Choose(last, n[0]);
    P::Emit(last, n[0], bytes);
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
