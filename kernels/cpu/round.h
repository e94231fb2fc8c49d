// Encoding without a search: numbers rounded one by one, the rules of GGML's legacy types, byte for byte, and 4-bit
// floats.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/catalog.h"

namespace edgequant {

// f32, f16 and bf16; q4_0, q4_1, q5_0, q5_1 and q8_0 as ggml writes them without importance.
bool RoundsAsReference(FormatId id);
// These, and mxfp4 and nvfp4 with the better of two scales per group, of which one is ggml's.
bool CanRound(FormatId id);
// The bits of the largest magnitude, without the sign. From 0x7f800000 on a weight is not finite, and `out` not all
// written.
uint32_t RoundBlocks(FormatId id, const float* x, size_t blocks, uint8_t* out);

// The largest magnitude, as the bits of a float without its sign: 0x7f800000 and more if there is a NaN or infinity.
uint32_t LargestMagnitude(const float* x, size_t n);

}  // namespace edgequant
