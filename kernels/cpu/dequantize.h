// Blocks of any described format to float, with the best instruction set of this machine.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/catalog.h"

namespace edgequant {

// src: `blocks` blocks of the format; out: blocks * n floats. `stream`: bypass the cache (out must be 64-byte aligned).
void Dequantize(FormatId id, const uint8_t* src, size_t blocks, float* out, bool stream = false, const int8_t* grid = nullptr);
// The same, one weight at a time through decode.h: the reference.
void DequantizeScalar(FormatId id, const uint8_t* src, size_t blocks, float* out, const int8_t* grid = nullptr);
const char* DequantizeTarget();

}  // namespace edgequant
