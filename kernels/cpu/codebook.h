// The nearest rows of a codebook.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace edgequant {

// For each of n vectors x of dim 2, 4 or 8 the row (of up to 256) with the least squared distance, weighted by w where it
// is not null (both n x dim). Of equal rows the first.
void NearestRows(const float* x, const float* w, size_t n, int dim, const float* rows, int count, uint8_t* codes);

}  // namespace edgequant
