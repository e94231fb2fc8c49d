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

void DequantizeTargeted(FormatId id, const uint8_t* src, size_t blocks, float* out, bool stream, const int8_t* grid) {
  switch (id) {
#define EDGEQUANT_X(name, text, block, gguf)                                                                  \
  case FormatId::k##name:                                                                         \
    return stream ? DequantizeBlocks<block, Store::kStream>(src, blocks, out, grid)                     \
                  : DequantizeBlocks<block, Store::kCached>(src, blocks, out, grid);
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

void Dequantize(FormatId id, const uint8_t* src, size_t blocks, float* out, bool stream, const int8_t* grid) {
  HWY_DYNAMIC_DISPATCH(DequantizeTargeted)(id, src, blocks, out, stream, grid);
}
const char* DequantizeTarget() { return HWY_DYNAMIC_DISPATCH(TargetNameTargeted)(); }

template <const Block& kB>
static void ScalarBlocks(const uint8_t* src, size_t blocks, float* out, const int8_t* grid) {
  for (size_t b = 0; b < blocks; ++b, src += kB.bytes, out += kB.n)
    for (int i = 0; i < kB.n; ++i) out[i] = Decode<kB>(src, i, grid);
}
void DequantizeScalar(FormatId id, const uint8_t* src, size_t blocks, float* out, const int8_t* grid) {
  switch (id) {
#define EDGEQUANT_X(name, text, block, gguf) \
  case FormatId::k##name: return ScalarBlocks<block>(src, blocks, out, grid);
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  }
}

}  // namespace edgequant

#endif  // HWY_ONCE
