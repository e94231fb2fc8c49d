// Sums over two runs of floats, in double.
#pragma once
#include <stddef.h>

namespace edgequant {

struct CompareSums {
  double squared_error = 0, squared_norm = 0, squared_norm_b = 0, dot = 0, weighted_error = 0, weighted_norm = 0;
  double max_error = 0;  // of the pairs that are numbers
};

// Adds the n pairs (a[k], b[k]) to the sums; w holds n weights, or is null for all 1.
void AddPairs(const float* a, const float* b, const float* w, size_t n, CompareSums& sums);

}  // namespace edgequant
