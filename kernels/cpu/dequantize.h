// Blocks of any described format to float, with the best instruction set of this machine.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/catalog.h"

namespace edgequant {

// src: `blocks` blocks of the format; out: blocks * n floats.
void DequantizeBlocks(FormatId id, const uint8_t* src, size_t blocks, float* out);

// The name of the instruction set in use, such as AVX3_DL.
const char* KernelTarget();

}  // namespace edgequant
