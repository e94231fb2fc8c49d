// The nearest point of the E8P grid (format/e8p.h), for many vectors of 8 weights.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edgequant {

// For n vectors of 8 weights at x: the code whose point is nearest to x * inverse, squared differences weighted by
// `weights` (8 per vector of `period` vectors, repeated; null: all 1). All 2^16 points are weighed.
void NearestE8P(const float* x, size_t n, float inverse, const float* weights, size_t period, uint16_t* codes);

}  // namespace edgequant
