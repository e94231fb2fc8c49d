#include "kernels/cpu/round.h"

#include <string.h>

#include "kernels/cpu/dequantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/round.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/round-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void RoundTargeted(FormatId id, const float* x, size_t blocks, uint8_t* out) {
  switch (id) {
    case FormatId::kQ4_0: return RoundBlocks<ggml::Q4_0>(x, blocks, out);
    case FormatId::kQ4_1: return RoundBlocks<ggml::Q4_1>(x, blocks, out);
    case FormatId::kQ5_0: return RoundBlocks<ggml::Q5_0>(x, blocks, out);
    case FormatId::kQ5_1: return RoundBlocks<ggml::Q5_1>(x, blocks, out);
    case FormatId::kQ8_0: return RoundBlocks<ggml::Q8_0>(x, blocks, out);
    default: return;
  }
}
uint32_t LargestMagnitudeTargeted(const float* x, size_t n) { return LargestMagnitude(x, n); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(RoundTargeted);
HWY_EXPORT(LargestMagnitudeTargeted);

bool CanRound(FormatId id) {
  const Block& b = BlockOf(id);
  return b.n == 1 || (b.n == 32 && b.map.kind == MapKind::kAffine);
}
void RoundBlocks(FormatId id, const float* x, size_t blocks, uint8_t* out) {
  switch (id) {
    case FormatId::kF32: memcpy(out, x, blocks * sizeof(float)); return;
    case FormatId::kF16: return DemoteToF16(x, blocks, reinterpret_cast<uint16_t*>(out));
    case FormatId::kBF16: return DemoteToBF16(x, blocks, reinterpret_cast<uint16_t*>(out));
    default: HWY_DYNAMIC_DISPATCH(RoundTargeted)(id, x, blocks, out);
  }
}
uint32_t LargestMagnitude(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(LargestMagnitudeTargeted)(x, n); }

}  // namespace edgequant
#endif  // HWY_ONCE
