// Activations for the panel kernels: int8 with a scale for every 256 of a row.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/catalog.h"

namespace edgequant {

inline constexpr size_t kActivationBlock = 256;
inline constexpr int kExactDigits = 4;

// Quantizes one row of k numbers of type f32, f16 or bf16 into `digits` rows of int8 in [-127, 127], `stride` bytes
// apart and padded with zeros to whole blocks: x[i] = sum over d of scale[d * scale_stride + i / 256] * q[d * stride +
// i], to half a step of the last digit. One digit: the largest magnitude of a block becomes 127. Four: powers of two,
// the error is below 2^-26 of that magnitude. A block that holds a NaN or an infinity has NaN scales.
void QuantizeActivations(FormatId type, const void* x, size_t k, int digits, int8_t* q, size_t stride, float* scale,
                         size_t scale_stride);

// Four rows of k int8 (a multiple of `run`), one after another, as the GEMM tile reads them: [k / run][4][run].
// Runs of 4 or 8.
void InterleaveActivations(const int8_t* q, size_t stride, size_t k, int run, uint8_t* out);

// Transposes the 4 x 4 int8 of every 16 of n (a multiple of 16), as the steps of compact panels of grids take them. In
// place if out is q.
void TransposeActivations(const int8_t* q, size_t n, int8_t* out);

// Sums of `count` groups of consecutive int8.
void SumActivations(const int8_t* q, size_t count, int group, int32_t* sums);

// n floats as f32, f16 or bf16 (nearest even).
void StoreOutputs(const float* y, size_t n, FormatId type, void* out);

}  // namespace edgequant
