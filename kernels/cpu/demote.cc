#include "kernels/cpu/dequantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/demote.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "core/half.h"
#include "kernels/cpu/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

template <bool kBF16>
HWY_INLINE void Demote(const float* HWY_RESTRICT x, size_t n, uint16_t* HWY_RESTRICT out) {
  size_t k = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<float> df;
  const hn::Rebind<uint16_t, decltype(df)> d16;
  for (; k + hn::Lanes(df) <= n; k += hn::Lanes(df)) {
    const auto v = hn::LoadU(df, x + k);
    hn::StoreU(kBF16 ? DemoteBF16(df, v) : DemoteF16(df, v), d16, out + k);
  }
#endif
  for (; k < n; ++k) out[k] = kBF16 ? BF16FromF32(x[k]) : F16FromF32(x[k]);
}
void DemoteAllToF16(const float* x, size_t n, uint16_t* out) { Demote<false>(x, n, out); }
void DemoteAllToBF16(const float* x, size_t n, uint16_t* out) { Demote<true>(x, n, out); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(DemoteAllToF16);
HWY_EXPORT(DemoteAllToBF16);

void DemoteToF16(const float* x, size_t n, uint16_t* out) { HWY_DYNAMIC_DISPATCH(DemoteAllToF16)(x, n, out); }
void DemoteToBF16(const float* x, size_t n, uint16_t* out) { HWY_DYNAMIC_DISPATCH(DemoteAllToBF16)(x, n, out); }

}  // namespace edgequant
#endif  // HWY_ONCE
