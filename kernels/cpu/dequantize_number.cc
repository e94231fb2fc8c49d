#include "kernels/cpu/dequantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dequantize_number.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/dequantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void DecodeNumber(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  DecodeFamily<Family::kNumber>(id, src, blocks, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(DecodeNumber);
void DequantizeNumber(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  HWY_DYNAMIC_DISPATCH(DecodeNumber)(id, src, blocks, out);
}

}  // namespace edgequant
#endif  // HWY_ONCE
