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

// Distances from that of a vector up: two of them in one pass.
HWY_INLINE void Across(DF d, size_t n, float* HWY_RESTRICT x) {
  const size_t lanes = hn::Lanes(d);
  size_t h = lanes;
  for (; h * 4 <= n; h *= 4)
    for (size_t first = 0; first < n; first += 4 * h)
      for (size_t i = first; i < first + h; i += lanes) {
        const VF a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + h), c = hn::LoadU(d, x + i + 2 * h), e = hn::LoadU(d, x + i + 3 * h);
        const VF ab = hn::Add(a, b), a_b = hn::Sub(a, b), ce = hn::Add(c, e), c_e = hn::Sub(c, e);
        hn::StoreU(hn::Add(ab, ce), d, x + i);
        hn::StoreU(hn::Add(a_b, c_e), d, x + i + h);
        hn::StoreU(hn::Sub(ab, ce), d, x + i + 2 * h);
        hn::StoreU(hn::Sub(a_b, c_e), d, x + i + 3 * h);
      }
  if (h * 2 > n) return;
  for (size_t first = 0; first < n; first += 2 * h)
    for (size_t i = first; i < first + h; i += lanes) {
      const VF a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + h);
      hn::StoreU(hn::Add(a, b), d, x + i);
      hn::StoreU(hn::Sub(a, b), d, x + i + h);
    }
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
