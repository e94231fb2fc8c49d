// Blocks of any described format to float, with the best instruction set of this machine.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/catalog.h"

namespace edgequant {

// src: `blocks` blocks of the format; out: blocks * n floats.
void DequantizeBlocks(FormatId id, const uint8_t* src, size_t blocks, float* out);

// The same for the formats of one family (see access.h), each in a file of its own.
void DequantizeNumber(FormatId id, const uint8_t* src, size_t blocks, float* out);
void DequantizeOneLevel(FormatId id, const uint8_t* src, size_t blocks, float* out);
void DequantizeTwoLevel(FormatId id, const uint8_t* src, size_t blocks, float* out);
void DequantizeTable(FormatId id, const uint8_t* src, size_t blocks, float* out);
void DequantizeGrid(FormatId id, const uint8_t* src, size_t blocks, float* out);

// n floats to 16 bits each, rounded to nearest even.
void DemoteToF16(const float* x, size_t n, uint16_t* out);
void DemoteToBF16(const float* x, size_t n, uint16_t* out);

}  // namespace edgequant
