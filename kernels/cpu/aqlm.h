// AQLM's sums of codebook entries.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/catalog.h"

namespace edgequant {

// `vectors` of 8 weights each: the sum of one entry of each codebook, times scale. Codes have 8 or 16 bits, `books` to
// a vector; `entries` is books x 2^bits x 8 numbers of type f32 or f16. Codes `ahead` bytes behind these are
// prefetched.
void SumEntries(const void* codes, int bits, size_t books, FormatId type, const void* entries, size_t vectors,
                float scale, size_t ahead, float* out);

}  // namespace edgequant
