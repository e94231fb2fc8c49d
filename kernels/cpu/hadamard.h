// The fast Walsh-Hadamard transform.
#pragma once
#include <stddef.h>

namespace edgequant {

// n numbers in runs of `block` (a power of two from 16 up): x * factors, then sums and differences of each run; or sums
// and differences first. Not normalized: twice is block times x. The same bits on every target.
void HadamardAfter(const float* factors, size_t block, size_t n, float* x);
void HadamardBefore(const float* factors, size_t block, size_t n, float* x);

}  // namespace edgequant
