// Decoding whole matrices, on all threads.
#pragma once
#include "op/tensor.h"

namespace edgequant {

// Writes the weights of `q` as `to`, one of f32, f16 and bf16 (rounded to nearest even), to out, which holds
// rows * cols numbers. f32 results equal the reference implementation of the format bit for bit.
void Dequantize(const TensorView& q, FormatId to, void* out);

// One row of cols weights to f32, on the calling thread.
void DequantizeRow(FormatId format, const uint8_t* row, size_t cols, float* out);

}  // namespace edgequant
