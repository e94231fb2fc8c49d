// Instantiates the Highway decoder for every format and target, and chooses the target at run time.
#include "kernels/cpu/dequantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dequantize.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/dequantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void DequantizeTargeted(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  switch (id) {
#define EDGEQUANT_X(name, text, block, gguf) \
  case FormatId::k##name: return DequantizeBlocks<block>(src, blocks, out);
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  }
}
const char* TargetNameTargeted() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(DequantizeTargeted);
HWY_EXPORT(TargetNameTargeted);

void DequantizeBlocks(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  HWY_DYNAMIC_DISPATCH(DequantizeTargeted)(id, src, blocks, out);
}
const char* KernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetNameTargeted)(); }

}  // namespace edgequant

#endif  // HWY_ONCE
