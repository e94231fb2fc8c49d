#include "kernels/cpu/hadamard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/hadamard.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant::hadamard {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;

// 1, or -1 where the bit `distance` of the lane is set: (a, b) becomes (b, a) + (a, -b).
alignas(64) constexpr float kSigns[4][16] = {
    {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1}, {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
    {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1}, {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};

// Distances below the length of a vector.
HWY_INLINE VF WithinVector([[maybe_unused]] DF d, VF v) {
#if HWY_TARGET != HWY_SCALAR
  const size_t lanes = hn::Lanes(d);
  v = hn::MulAdd(v, hn::Load(d, kSigns[0]), hn::Shuffle2301(v));
  v = hn::MulAdd(v, hn::Load(d, kSigns[1]), hn::Shuffle1032(v));
  if (lanes > 4) v = hn::MulAdd(v, hn::Load(d, kSigns[2]), hn::SwapAdjacentBlocks(v));
  if (lanes > 8) v = hn::MulAdd(v, hn::Load(d, kSigns[3]), hn::ConcatLowerUpper(d, v, v));
#endif
  return v;
}

// Sums and differences of 2^n vectors, all distances from the least up: in the order of a pass for each.
template <int kCount>
HWY_INLINE void Butterflies(VF* v) {
  if constexpr (kCount > 1) {
    Butterflies<kCount / 2>(v);
    Butterflies<kCount / 2>(v + kCount / 2);
    for (int i = 0; i < kCount / 2; ++i) {
      const VF a = v[i], b = v[i + kCount / 2];
      v[i] = hn::Add(a, b);
      v[i + kCount / 2] = hn::Sub(a, b);
    }
  }
}

// Several distances, h and its multiples below kCount * h, in one pass.
template <int kCount>
HWY_INLINE void Pass(DF d, size_t h, size_t n, float* HWY_RESTRICT x) {
  for (size_t first = 0; first < n; first += kCount * h)
    for (size_t i = first; i < first + h; i += hn::Lanes(d)) {
      VF v[kCount];
      for (size_t k = 0; k < kCount; ++k) v[k] = hn::LoadU(d, x + i + k * h);
      Butterflies<kCount>(v);
      for (size_t k = 0; k < kCount; ++k) hn::StoreU(v[k], d, x + i + k * h);
    }
}

// Distances from that of a vector up.
HWY_INLINE void Across(DF d, size_t n, float* HWY_RESTRICT x) {
  constexpr int kMost = hn::MaxLanes(DF()) == 16 ? 16 : 8;  // as registers hold
  size_t h = hn::Lanes(d);
  for (; h * kMost <= n; h *= kMost) Pass<kMost>(d, h, n, x);
  if (h * 8 <= n) Pass<8>(d, h, n, x);
  else if (h * 4 <= n) Pass<4>(d, h, n, x);
  else if (h * 2 <= n) Pass<2>(d, h, n, x);
}

void After(const float* HWY_RESTRICT factors, size_t block, size_t n, float* HWY_RESTRICT x) {
  const DF d;
  for (size_t first = 0; first < n; first += block) {
    for (size_t i = first; i < first + block; i += hn::Lanes(d))
      hn::StoreU(WithinVector(d, hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, factors + i))), d, x + i);
    Across(d, block, x + first);
  }
}

void Before(const float* HWY_RESTRICT factors, size_t block, size_t n, float* HWY_RESTRICT x) {
  const DF d;
  for (size_t first = 0; first < n; first += block) {
    for (size_t i = first; i < first + block; i += hn::Lanes(d)) hn::StoreU(WithinVector(d, hn::LoadU(d, x + i)), d, x + i);
    Across(d, block, x + first);
    for (size_t i = first; i < first + block; i += hn::Lanes(d)) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::LoadU(d, factors + i)), d, x + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::hadamard
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace hadamard {
HWY_EXPORT(After);
HWY_EXPORT(Before);
}  // namespace hadamard

void HadamardAfter(const float* factors, size_t block, size_t n, float* x) {
  using namespace hadamard;
  HWY_DYNAMIC_DISPATCH(After)(factors, block, n, x);
}
void HadamardBefore(const float* factors, size_t block, size_t n, float* x) {
  using namespace hadamard;
  HWY_DYNAMIC_DISPATCH(Before)(factors, block, n, x);
}

}  // namespace edgequant
#endif
