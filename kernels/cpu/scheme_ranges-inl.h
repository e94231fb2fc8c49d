// The least and the greatest weight of 16 groups side by side.
#if defined(EDGEQUANT_SCHEME_RANGES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_RANGES_INL_H_
#undef EDGEQUANT_SCHEME_RANGES_INL_H_
#else
#define EDGEQUANT_SCHEME_RANGES_INL_H_
#endif

#include <string.h>

#include <type_traits>

#include "kernels/cpu/search_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

using DU = hn::RebindToUnsigned<DF>;
using VU = hn::Vec<DU>;

struct alignas(64) Ranges { float low[kColumns], high[kColumns], extreme[kColumns], mean_magnitude[kColumns]; };

// The maxima of every kLaneParts-th lane, and all that 16 groups have of them put together.
#if HWY_TARGET == HWY_SCALAR
constexpr size_t kLaneParts = 1;
template <class D, class T>
HWY_INLINE void StoreParts(D d, hn::Vec<D> v, T* HWY_RESTRICT out) { hn::Store(v, d, out); }
template <class D, class T>
HWY_INLINE hn::Vec<D> LargestOfParts(D d, const T* HWY_RESTRICT parts) { return hn::Load(d, parts); }
#else
constexpr size_t kLaneParts = 4;
template <class D, class T>
HWY_INLINE void StoreParts(D d, hn::Vec<D> v, T* HWY_RESTRICT out) {
  if constexpr (hn::MaxLanes(D()) > kLaneParts) {
    const hn::Half<D> dh;
    StoreParts(dh, hn::Max(hn::LowerHalf(dh, v), hn::UpperHalf(dh, v)), out);
  } else {
    hn::Store(v, d, out);
  }
}
template <class D, class T>
HWY_INLINE hn::Vec<D> LargestOfParts(D d, const T* HWY_RESTRICT parts) {
  constexpr size_t lanes = hn::MaxLanes(D()), blocks = lanes / kLaneParts;
  const hn::Repartition<uint64_t, D> d64;
  const auto two = [&](size_t k) HWY_ATTR {
    const auto a = hn::Load(d, parts + k * lanes), b = hn::Load(d, parts + (k + 1) * lanes);
    return hn::BitCast(d64, hn::Max(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto a = two(0), b = two(2);
  const auto low = hn::InterleaveLower(d64, a, b), high = hn::InterleaveUpper(d64, a, b);
  const auto most = hn::Max(hn::BitCast(d, low), hn::BitCast(d, high));
  if constexpr (blocks == 1) return most;
  alignas(64) int32_t order[lanes];  // lane k of block j has the group of block j of vector k
  for (size_t g = 0; g < lanes; ++g) order[g] = int32_t(g % blocks * kLaneParts + g / blocks);
  return hn::TableLookupLanes(most, hn::SetTableIndices(d, order));
}
#endif

HWY_INLINE uint32_t BitsOf(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}

// The bits of floats, as signed numbers for the highest weight and as unsigned ones for the lowest: so NaN is found,
// too. In groups of one sign both are that of largest magnitude.
struct Extremes { VI high; VU low; };
HWY_INLINE Extremes ExtremesOf(VF v) { return {hn::BitCast(DI(), v), hn::BitCast(DU(), v)}; }
HWY_INLINE Extremes ExtremesOf(const Extremes& a, const Extremes& b) {
  return {hn::Max(a.high, b.high), hn::Max(a.low, b.low)};
}
template <size_t kVectors>
HWY_INLINE Extremes ExtremesOfVectors(const float* HWY_RESTRICT x) {
  if constexpr (kVectors == 1) {
    return ExtremesOf(hn::LoadU(DF(), x));
  } else {
    constexpr size_t half = kVectors / 2;
    return ExtremesOf(ExtremesOfVectors<half>(x), ExtremesOfVectors<half>(x + half * size_t(LanesF())));
  }
}
// n is a multiple of as many vectors; or else of no vectors.
template <size_t kVectors>
HWY_INLINE Extremes ExtremesOfGroup(const float* HWY_RESTRICT x, size_t n) {
  const size_t lanes = size_t(LanesF());
  if constexpr (kVectors > 0) {
    Extremes e = ExtremesOfVectors<kVectors>(x);
    for (size_t i = kVectors * lanes; i < n; i += kVectors * lanes)
      e = ExtremesOf(e, ExtremesOfVectors<kVectors>(x + i));
    return e;
  } else {  // the last weights are looked at again
    alignas(64) float few[kColumns];
    for (size_t k = 0; k < lanes; ++k) few[k] = x[HWY_MIN(k, n - 1)];
    Extremes e = ExtremesOfVectors<1>(few);
    for (size_t i = lanes; i < n; i += lanes) e = ExtremesOf(e, ExtremesOfVectors<1>(x + HWY_MIN(i, n - lanes)));
    return e;
  }
}

HWY_INLINE Extremes ExtremesOfAny(const float* HWY_RESTRICT x, size_t n) {
  const size_t lanes = size_t(LanesF());
  if (n % (4 * lanes) == 0) return ExtremesOfGroup<4>(x, n);
  if (n % (2 * lanes) == 0) return ExtremesOfGroup<2>(x, n);
  return ExtremesOfGroup<0>(x, n);
}

// Of up to 16 groups, in parts: get(g) for each. Of those that are missing none needs a second look.
struct alignas(64) RangeParts { int32_t high[kColumns * kLaneParts]; uint32_t low[kColumns * kLaneParts]; };
template <class Get>
HWY_INLINE void StoreExtremes(size_t count, RangeParts& parts, const Get& get) {
  for (size_t g = 0; g < count; ++g) {
    const Extremes e = get(g);
    StoreParts(DI(), e.high, parts.high + g * kLaneParts);
    StoreParts(DU(), e.low, parts.low + g * kLaneParts);
  }
  for (size_t k = count * kLaneParts; k < kColumns * kLaneParts; ++k) parts.high[k] = 1, parts.low[k] = 0x80000002;
}
// Groups of n weights that follow one another.
HWY_INLINE void FindParts(const float* HWY_RESTRICT x, size_t n, size_t count, RangeParts& parts) {
  const size_t lanes = size_t(LanesF());
  const auto find = [&](auto vectors) HWY_ATTR {
    StoreExtremes(count, parts,
                  [&](size_t g) HWY_ATTR { return ExtremesOfGroup<decltype(vectors)::value>(x + g * n, n); });
  };
  if (n % (4 * lanes) == 0) find(std::integral_constant<size_t, 4>());
  else if (n % (2 * lanes) == 0) find(std::integral_constant<size_t, 2>());
  else find(std::integral_constant<size_t, 0>());
}

// The ranges of the same groups, without the means; `most` grows to the bits of the largest magnitude. In groups of one
// sign the extremes are found again. Some time after FindParts: its stores are read in larger pieces.
HWY_INLINE void RangesOf(const float* HWY_RESTRICT x, size_t n, size_t count, const RangeParts& parts, Ranges& r,
                         VI& most) {
  const DF d;
  const DI di;
  const DU du;
  const size_t lanes = size_t(LanesF());
  uint32_t again = 0;
  for (size_t c = 0; c < size_t(kColumns); c += lanes) {
    const VI top = LargestOfParts(di, parts.high + c * kLaneParts);
    const VU bottom = LargestOfParts(du, parts.low + c * kLaneParts);
    const VF high = hn::BitCast(d, top), low = hn::BitCast(d, bottom), positive_low = hn::Neg(low);
    const VI magnitude = hn::Set(di, INT32_MAX);
    most = hn::Max(most, hn::Max(hn::And(top, magnitude), hn::And(hn::BitCast(di, bottom), magnitude)));
    hn::Store(high, d, r.high + c);
    hn::Store(low, d, r.low + c);
    hn::Store(hn::IfThenElse(hn::Gt(high, positive_low), high, low), d, r.extreme + c);
    const auto one_sign = hn::Lt(hn::Or(top, hn::BitCast(di, positive_low)), hn::Zero(di));
    if (!hn::AllFalse(d, hn::Or(hn::RebindMask(d, one_sign), hn::Eq(high, positive_low)))) again |= 1u << c;
  }
  if (HWY_UNLIKELY(again != 0))
    for (size_t g = 0; g < count; ++g) {
      const float* const group = x + g * n;
      if (BitsOf(r.high[g]) >> 31 || !(BitsOf(r.low[g]) >> 31)) {
        float low = group[0], high = group[0];
        for (size_t i = 1; i < n; ++i) low = HWY_MIN(low, group[i]), high = HWY_MAX(high, group[i]);
        r.low[g] = low, r.high[g] = high;
        r.extreme[g] = high > -low ? high : low;
      }
      if (r.high[g] == -r.low[g])  // of two with opposite signs the first
        for (size_t i = 0; i < n; ++i)
          if (group[i] == r.high[g] || group[i] == r.low[g]) {
            r.extreme[g] = group[i];
            break;
          }
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_RANGES_INL_H_
