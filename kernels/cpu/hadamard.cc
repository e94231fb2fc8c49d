#include "kernels/cpu/hadamard.h"

#include <type_traits>

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

constexpr size_t kMost = hn::MaxLanes(DF()) == 16 ? 16 : 8;  // vectors that registers hold

// All distances below kCount vectors, in one pass. Numbers are first multiplied by `before` and in the end by `after`,
// unless these are null.
template <size_t kCount>
HWY_INLINE void FirstPass(DF d, size_t n, const float* before, const float* after, float* HWY_RESTRICT x) {
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < n; i += kCount * lanes) {
    VF v[kCount];
    for (size_t k = 0; k < kCount; ++k) {
      v[k] = hn::LoadU(d, x + i + k * lanes);
      if (before) v[k] = hn::Mul(v[k], hn::LoadU(d, before + i + k * lanes));
      v[k] = WithinVector(d, v[k]);
    }
    Butterflies<int(kCount)>(v);
    for (size_t k = 0; k < kCount; ++k)
      hn::StoreU(after ? hn::Mul(v[k], hn::LoadU(d, after + i + k * lanes)) : v[k], d, x + i + k * lanes);
  }
}

// Several distances, h and its multiples below kCount * h, in one pass.
template <size_t kCount>
HWY_INLINE void Pass(DF d, size_t h, size_t n, const float* after, float* HWY_RESTRICT x) {
  for (size_t first = 0; first < n; first += kCount * h)
    for (size_t i = first; i < first + h; i += hn::Lanes(d)) {
      VF v[kCount];
      for (size_t k = 0; k < kCount; ++k) v[k] = hn::LoadU(d, x + i + k * h);
      Butterflies<int(kCount)>(v);
      for (size_t k = 0; k < kCount; ++k)
        hn::StoreU(after ? hn::Mul(v[k], hn::LoadU(d, after + i + k * h)) : v[k], d, x + i + k * h);
    }
}

// Calls body with the largest number of vectors, a constant, that n vectors are a multiple of.
template <class Body>
HWY_INLINE void WithCount(size_t n, const Body& body) {
  if (kMost == 16 && n >= 16) return body(std::integral_constant<size_t, kMost>());
  if (n >= 8) return body(std::integral_constant<size_t, 8>());
  if (n >= 4) return body(std::integral_constant<size_t, 4>());
  if (n >= 2) return body(std::integral_constant<size_t, 2>());
  body(std::integral_constant<size_t, 1>());
}

void TransformTargeted(const float* before, const float* after, size_t block, size_t n, float* HWY_RESTRICT x) {
  const DF d;
  for (size_t first = 0; first < n; first += block, x += block) {
    size_t h = hn::Lanes(d);  // distances below this are done
    WithCount(block / h, [&](auto count) HWY_ATTR {
      constexpr size_t kCount = decltype(count)::value;
      const bool last = h * kCount == block;
      FirstPass<kCount>(d, block, before ? before + first : nullptr, after && last ? after + first : nullptr, x);
      h *= kCount;
    });
    while (h < block)
      WithCount(block / h, [&](auto count) HWY_ATTR {
        constexpr size_t kCount = decltype(count)::value;
        Pass<kCount>(d, h, block, after && h * kCount == block ? after + first : nullptr, x);
        h *= kCount;
      });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::hadamard
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace hadamard {
HWY_EXPORT(TransformTargeted);
}  // namespace hadamard

void HadamardAfter(const float* factors, size_t block, size_t n, float* x) {
  using namespace hadamard;
  HWY_DYNAMIC_DISPATCH(TransformTargeted)(factors, nullptr, block, n, x);
}
void HadamardBefore(const float* factors, size_t block, size_t n, float* x) {
  using namespace hadamard;
  HWY_DYNAMIC_DISPATCH(TransformTargeted)(nullptr, factors, block, n, x);
}

}  // namespace edgequant
#endif
