// Encoding without a search: 16 groups at a time, so that what a group needs once (a division, a number to round) is
// done for all of them in one vector.
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
    if constexpr (IsE2M1(kB)) TakeByteScales(WideGroups<kB, kGroup>(x, n), n);
  }
  static HWY_INLINE void Emit(const float* x, const Numbers& n, uint8_t* out) {
    if constexpr (IsE2M1(kB)) EmitFloats<kB, 2>(x, n, out);
    else EmitLegacy<kB>(x, n, out);
  }
};

// Bytes: stores end in order, so that one that waits for its line holds up all behind it.
constexpr size_t kOutAhead = 2048;
template <size_t kBytes>
HWY_INLINE void PrefetchOut(const uint8_t* out) {
  for (size_t i = 0; i < kBytes; i += 64) hwy::Prefetch(out + kOutAhead + i);
}

#if EDGEQUANT_ROUND_WORDS
// The turns of a block of groups of 16, four at different stages in parts of four groups: a turn's numbers follow from
// its parts at the begin of the next turn, and are used a turn later.
template <const Block& kB>
HWY_INLINE bool RoundParts(const float* HWY_RESTRICT x, size_t turns, uint8_t* HWY_RESTRICT out, VF& most) {
  constexpr size_t kWeights = kColumns * 16, kBytes = kWeights / kB.n * kB.bytes;
  Unfolded u;
  Numbers n[8];
  for (size_t t = 0; t < turns + 4; ++t, x += kWeights) {
    if (t >= 1 && t <= turns && !FindOfParts<kB>(u, n[(t - 1) % 8], most)) return false;
    if (t >= 3 && t < turns + 3) ChooseOfParts(x - 3 * kWeights, u, n[(t - 3) % 8]);
    for (int q = 0; q < 4; ++q) {
      if (t >= 4) EmitPart<kB>(x - 4 * kWeights, n[(t - 4) % 8], q, out);
      if (t >= 2 && t < turns + 2) ComparePart(x - 2 * kWeights, n[(t - 2) % 8].words, q, u);
      if (t < turns) FindPart(x, q, u);
    }
    if (t < 4) continue;
    PrefetchOut<kBytes>(out);
    out += kBytes;
  }
  return true;
}
#endif

// What a pass finds takes long to follow from the last weight, so each pass works one turn ahead of the next.
template <const Block& kB>
HWY_INLINE bool RoundTurns(const float* HWY_RESTRICT x, size_t turns, uint8_t* HWY_RESTRICT out, VF& most) {
  using P = Passes<kB>;
  constexpr size_t kAhead = IsE2M1(kB) ? 2 : 1, kWeights = kColumns * P::kGroup, kBytes = kWeights / kB.n * kB.bytes;
  Numbers n[3];
  for (size_t t = 0; t < turns + kAhead; ++t, x += kWeights) {
    if (t < turns && !P::Find(x, n[t % 3], most)) return false;
    if (kAhead == 2 && t >= 1 && t <= turns) P::Choose(x - kWeights, n[(t + 2) % 3]);
    if (t < kAhead) continue;
    PrefetchOut<kBytes>(out);
    P::Emit(x - kAhead * kWeights, n[(t + 3 - kAhead) % 3], out);
    out += kBytes;
  }
  return true;
}

// Bits of the greatest magnitude, or those of NaN where a weight is not finite: then the blocks are not all written.
template <const Block& kB>
HWY_NOINLINE uint32_t RoundBlocks(const float* HWY_RESTRICT x, size_t blocks, uint8_t* HWY_RESTRICT out) {
  using P = Passes<kB>;
  constexpr size_t kTurn = kColumns / ShapeOf(kB).groups;  // blocks
  constexpr size_t kWeights = kTurn * kB.n, kBytes = kTurn * kB.bytes;
  const DF d;
  VF most = hn::Zero(d);
  const size_t turns = blocks / kTurn, rest = blocks % kTurn;
#if EDGEQUANT_ROUND_WORDS
  if constexpr (IsE2M1(kB) && P::kGroup == 16) {
    if (!RoundParts<kB>(x, turns, out, most)) return kNotFinite;
  } else
#endif
  if (!RoundTurns<kB>(x, turns, out, most)) return kNotFinite;
  if (rest != 0) {
    alignas(64) float last[kWeights] = {};
    uint8_t bytes[kBytes];
    Numbers n;
    memcpy(last, x + turns * kWeights, rest * kB.n * sizeof(float));
    if (!P::Find(last, n, most)) return kNotFinite;
    P::Choose(last, n);
    P::Emit(last, n, bytes);
    memcpy(out + turns * kBytes, bytes, rest * kB.bytes);
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

// bf16, rounded to nearest even, and the bits of the greatest magnitude. Not for NaN: the caller refuses it.
HWY_NOINLINE uint32_t RoundToBF16(const float* HWY_RESTRICT x, size_t n, uint8_t* HWY_RESTRICT out) {
  const DF d;
  const DI di;
  const VI magnitude = hn::Set(di, 0x7fffffff), half = hn::Set(di, 0x7fff), one = hn::Set(di, 1);
  VI most = hn::Zero(di);
  [[maybe_unused]] const auto rounded = [&](size_t i) EDGEQUANT_UNROLLED {
    const VI v = hn::BitCast(di, hn::LoadU(d, x + i));
    most = hn::Max(most, hn::And(v, magnitude));
    return hn::Add(v, hn::Add(half, hn::And(hn::ShiftRight<16>(v), one)));
  };
  size_t i = 0;
#if EDGEQUANT_ROUND_WORDS
  alignas(64) static constexpr Halves kHigh;
  const __m512i high = _mm512_load_si512(kHigh.from);
  for (; i + 32 <= n; i += 32) {
    const VI a = rounded(i), b = rounded(i + 16);
    _mm512_storeu_si512(out + 2 * i, _mm512_permutex2var_epi16(a.raw, high, b.raw));
  }
#endif
#if HWY_TARGET != HWY_SCALAR
  const hn::Rebind<uint16_t, DF> d16;
  const hn::RebindToUnsigned<DF> du;
  for (; i + size_t(LanesF()) <= n; i += size_t(LanesF())) {
    const auto top = hn::BitCast(di, hn::ShiftRight<16>(hn::BitCast(du, rounded(i))));
    hn::StoreU(hn::DemoteTo(d16, top), d16, reinterpret_cast<uint16_t*>(out + 2 * i));
  }
#endif
  uint32_t result = uint32_t(hn::GetLane(hn::MaxOfLanes(di, most)));
  for (; i < n; ++i) {
    const uint16_t number = BF16FromF32(x[i]);
    memcpy(out + 2 * i, &number, 2);
    result = HWY_MAX(result, BitsOfFloat(x[i]) & 0x7fffffff);
  }
  return result;
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_INL_H_
