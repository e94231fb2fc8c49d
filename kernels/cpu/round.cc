#include "kernels/cpu/round.h"

#include <string.h>

#include <algorithm>

#include "kernels/cpu/compat.h"
#include "kernels/cpu/dequantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/round.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/round-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

uint32_t RoundTargeted(FormatId id, const float* x, size_t blocks, uint8_t* out) {
  switch (id) {
    case FormatId::kBF16: return RoundToBF16(x, blocks, out);
    case FormatId::kQ4_0: return RoundBlocks<ggml::Q4_0>(x, blocks, out);
    case FormatId::kQ4_1: return RoundBlocks<ggml::Q4_1>(x, blocks, out);
    case FormatId::kQ5_0: return RoundBlocks<ggml::Q5_0>(x, blocks, out);
    case FormatId::kQ5_1: return RoundBlocks<ggml::Q5_1>(x, blocks, out);
    case FormatId::kQ8_0: return RoundBlocks<ggml::Q8_0>(x, blocks, out);
    case FormatId::kMXFP4: return RoundBlocks<ggml::MXFP4>(x, blocks, out);
    case FormatId::kNVFP4: return RoundBlocks<ggml::NVFP4>(x, blocks, out);
    default: return 0;
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

bool RoundsAsReference(FormatId id) {
  const Block& b = BlockOf(id);
  return b.n == 1 || (b.n == 32 && b.map.kind == MapKind::kAffine);
}
bool CanRound(FormatId id) { return RoundsAsReference(id) || id == FormatId::kMXFP4 || id == FormatId::kNVFP4; }
uint32_t RoundBlocks(FormatId id, const float* x, size_t blocks, uint8_t* out) {
  if (BlockOf(id).n != 1 || id == FormatId::kBF16) return HWY_DYNAMIC_DISPATCH(RoundTargeted)(id, x, blocks, out);
  constexpr size_t kPiece = 2048;  // stays in the first-level cache
  const size_t bytes = size_t(BlockOf(id).bytes);
  uint32_t most = 0;
  for (size_t i = 0; i < blocks; i += kPiece) {
    const size_t n = std::min(kPiece, blocks - i);
    most = std::max(most, LargestMagnitude(x + i, n));
    uint8_t* to = out + i * bytes;
    if (id == FormatId::kF16) DemoteToF16(x + i, n, reinterpret_cast<uint16_t*>(to));
    else memcpy(to, x + i, n * bytes);
  }
  return most;
}
uint32_t LargestMagnitude(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(LargestMagnitudeTargeted)(x, n); }

}  // namespace edgequant
#endif  // HWY_ONCE
