#include "kernels/cpu/dequantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dequantize_two_level.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/dequantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void DecodeTwoLevel(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  DecodeFamily<Family::kTwoLevel>(id, src, blocks, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(DecodeTwoLevel);
void DequantizeTwoLevel(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  HWY_DYNAMIC_DISPATCH(DecodeTwoLevel)(id, src, blocks, out);
}

}  // namespace edgequant
#endif  // HWY_ONCE
