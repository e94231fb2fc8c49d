// The legacy rules: the scale follows from the extreme weights of a block, codes are rounded for the scale before it is
// rounded to 16 bits. Each step rounds as the reference does, so the bytes are the same.
#if defined(EDGEQUANT_ROUND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_INL_H_
#undef EDGEQUANT_ROUND_INL_H_
#else
#define EDGEQUANT_ROUND_INL_H_
#endif

#include <math.h>

#include "kernels/cpu/search_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

struct Range { float low, high; };
template <int kN>
HWY_INLINE Range RangeOf(const float* HWY_RESTRICT x) {
  const DF d;
  VF low = hn::LoadU(d, x), high = low;
  for (int i = LanesF(); i < kN; i += LanesF()) {
    const VF v = hn::LoadU(d, x + i);
    low = hn::Min(low, v);
    high = hn::Max(high, v);
  }
  return {hn::GetLane(hn::MinOfLanes(d, low)), hn::GetLane(hn::MaxOfLanes(d, high))};
}

// The weight of largest magnitude; of two with opposite signs the first one. Which end it is cannot be predicted, so
// there is no branch on it.
template <int kN>
HWY_INLINE float Extreme(const float* HWY_RESTRICT x) {
  const hn::CappedTag<float, 1> d1;
  const Range r = RangeOf<kN>(x);
  const auto low = hn::Set(d1, r.low), high = hn::Set(d1, r.high);
  if (HWY_LIKELY(r.high != -r.low)) return hn::GetLane(hn::IfThenElse(hn::Gt(high, hn::Neg(low)), high, low));
  for (int i = 0; i < kN; ++i)
    if (x[i] == r.high || x[i] == r.low) return x[i] == 0 ? 0.0f : x[i];
  return 0;
}

// Vector minima lose the sign of zero; the reference keeps that of the first zero, and writes it.
template <int kN>
HWY_INLINE float FirstZero(const float* HWY_RESTRICT x) {
  for (int i = 0; i < kN; ++i)
    if (x[i] == 0) return x[i];
  return 0;
}

HWY_INLINE float InverseOf(float d) {  // a subnormal d has no finite inverse, and is 0 in 16 bits
  const float id = d != 0 ? 1.0f / d : 0.0f;
  return id - id == 0 ? id : 0.0f;
}

template <const Block& kB>
HWY_INLINE void RoundBlock(const float* HWY_RESTRICT x, uint8_t* HWY_RESTRICT out) {
  static constexpr Shape shape = ShapeOf(kB);
  const DF d;
  const DI di;
  const hn::Rebind<uint8_t, DF> d8;
  const hn::Rebind<int8_t, DF> ds8;
  float scale, offset = 0;
  alignas(64) uint8_t codes[kB.n];
  if constexpr (shape.affine) {
    const Range r = RangeOf<kB.n>(x);
    scale = r.high > r.low ? (r.high - r.low) / shape.high : 0.0f;
    offset = r.low == 0 ? FirstZero<kB.n>(x) : r.low;
    const VF low = hn::Set(d, r.low), inverse = hn::Set(d, InverseOf(scale));
    for (int i = 0; i < kB.n; i += LanesF()) {
      const VF v = hn::Add(hn::Mul(hn::Sub(hn::LoadU(d, x + i), low), inverse), hn::Set(d, 0.5f));
      hn::StoreU(hn::DemoteTo(d8, hn::Min(hn::ConvertTo(di, v), hn::Set(di, int(shape.high)))), d8, codes + i);
    }
  } else if constexpr (kB.codes[0].is_signed) {
    const Range r = RangeOf<kB.n>(x);
    scale = fabsf(HWY_MAX(r.high, -r.low)) / shape.high;
    const VF inverse = hn::Set(d, InverseOf(scale));
    for (int i = 0; i < kB.n; i += LanesF()) {  // halves go away from zero
      const VF v = hn::Mul(hn::LoadU(d, x + i), inverse);
      const VF rounded = hn::Add(v, hn::CopySign(hn::Set(d, 0.49999997f), v));
      hn::StoreU(hn::DemoteTo(ds8, hn::ConvertTo(di, rounded)), ds8, reinterpret_cast<int8_t*>(codes) + i);
    }
  } else {
    scale = Extreme<kB.n>(x) / shape.low;
    const VF inverse = hn::Set(d, InverseOf(scale));
    for (int i = 0; i < kB.n; i += LanesF()) {
      const VF v = hn::Add(hn::Mul(hn::LoadU(d, x + i), inverse), hn::Set(d, 0.5f - shape.low));
      hn::StoreU(hn::DemoteTo(d8, hn::Min(hn::ConvertTo(di, v), hn::Set(di, shape.codes - 1))), d8, codes + i);
    }
  }
  PackBlock<kB>(codes, &scale, nullptr, &offset, nullptr, out);
}

template <const Block& kB>
HWY_NOINLINE void RoundBlocks(const float* HWY_RESTRICT x, size_t blocks, uint8_t* HWY_RESTRICT out) {
  for (size_t b = 0; b < blocks; ++b) RoundBlock<kB>(x + b * kB.n, out + b * kB.bytes);
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
