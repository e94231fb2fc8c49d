// A slow decoder, written format by format from the meaning of the bytes and sharing nothing with format/decode.h but
// the numbers of the grids. (A format not written here is decoded by decode.h, which its golden file checks.)
#pragma once
#include <cstdint>

#include "format/catalog.h"

namespace edgequant::reference {

// One block to BlockOf(id).n floats.
void DecodeBlock(FormatId id, const uint8_t* block, float* out);

float F16(uint16_t bits);

}  // namespace edgequant::reference
