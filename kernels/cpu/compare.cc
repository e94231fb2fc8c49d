#include "kernels/cpu/compare.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/compare.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The sums of one vector of doubles after another; the last floats are padded with zeros, which add nothing.
template <bool kWeighted>
HWY_INLINE void AddVectors(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, const float* HWY_RESTRICT w,
                           size_t n, CompareSums& sums) {
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> df;
  const size_t lanes = hn::Lanes(dd);
  auto error = hn::Zero(dd), norm = error, norm_b = error, dot = error, weighted = error, weighted_norm = error,
       max = error;
  const auto add = [&](const float* pa, const float* pb, const float* pw) HWY_ATTR {
    const auto x = hn::PromoteTo(dd, hn::LoadU(df, pa)), y = hn::PromoteTo(dd, hn::LoadU(df, pb));
    const auto d = hn::Sub(x, y);
    error = hn::MulAdd(d, d, error);
    norm = hn::MulAdd(x, x, norm);
    norm_b = hn::MulAdd(y, y, norm_b);
    dot = hn::MulAdd(x, y, dot);
    max = hn::Max(hn::Abs(d), max);
    if constexpr (kWeighted) {
      const auto i = hn::PromoteTo(dd, hn::LoadU(df, pw));
      weighted = hn::MulAdd(hn::Mul(i, d), d, weighted);
      weighted_norm = hn::MulAdd(hn::Mul(i, x), x, weighted_norm);
    }
  };
  size_t k = 0;
  for (; k + lanes <= n; k += lanes) add(a + k, b + k, kWeighted ? w + k : nullptr);
  if (k < n) {
    float rest[3][HWY_MAX_BYTES / sizeof(float)] = {};
    for (size_t j = 0; k + j < n; ++j) {
      rest[0][j] = a[k + j];
      rest[1][j] = b[k + j];
      if (kWeighted) rest[2][j] = w[k + j];
    }
    add(rest[0], rest[1], rest[2]);
  }
  const auto sum = [&](auto v) HWY_ATTR { return hn::GetLane(hn::SumOfLanes(dd, v)); };
  sums.squared_error += sum(error);
  sums.squared_norm += sum(norm);
  sums.squared_norm_b += sum(norm_b);
  sums.dot += sum(dot);
  sums.weighted_error += sum(kWeighted ? weighted : error);
  sums.weighted_norm += sum(kWeighted ? weighted_norm : norm);
  sums.max_error = HWY_MAX(sums.max_error, hn::GetLane(hn::MaxOfLanes(dd, max)));
}
void AddPairsTargeted(const float* a, const float* b, const float* w, size_t n, CompareSums& sums) {
  if (w)
    AddVectors<true>(a, b, w, n, sums);
  else
    AddVectors<false>(a, b, w, n, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(AddPairsTargeted);
void AddPairs(const float* a, const float* b, const float* w, size_t n, CompareSums& sums) {
  HWY_DYNAMIC_DISPATCH(AddPairsTargeted)(a, b, w, n, sums);
}

}  // namespace edgequant
#endif  // HWY_ONCE
