// Encoding to QuIP#'s E8P12 grid.
#pragma once
#include "algo/quantize.h"

namespace edgequant {

// Writes the words (op/vectors.h) of rows x cols weights and returns their scale. Every vector gets the nearest of all
// points. Effort: fast takes the scale that is best for Gaussian weights; default tries scales on a sample of the
// vectors; best also refits on all of them. importance: one weight per column, or null.
float EncodeE8P(const float* x, size_t rows, size_t cols, const float* importance, Effort effort, uint64_t* words);

}  // namespace edgequant
