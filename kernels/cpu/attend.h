// What lies between the matrix products of a transformer's decoder: rows of f32, and weights, keys and values that are
// f32 or bf16. Lengths of rows and heads are multiples of 16.
#pragma once
#include <stddef.h>

#include "format/catalog.h"

namespace edgequant {

constexpr size_t kRowMultiple = 16;

// y = x / root(mean of x^2 + eps) * (w + plus). x and y may be the same.
void NormRow(const float* x, FormatId type, const void* w, float plus, float eps, size_t n, float* y);

// Rotates a head by position: its two halves (a, b) become (a cos - b sin, b cos + a sin); cos and sin have d numbers.
void RotateHead(float* x, const float* cos, const float* sin, size_t d);

// y (d) = softmax(scale * q K^T) V for keys and values (n, d), n > 0. scores: scratch of n numbers, rounded up to 16.
void AttendHead(FormatId type, const float* q, const void* keys, const void* values, size_t n, size_t d, float scale,
                float* scores, float* y);

// gate = f(gate) * up; GELU in the approximation by the hyperbolic tangent.
enum class Gate { kSilu, kGelu };
void GateRow(Gate kind, float* gate, const float* up, size_t n);

// x += y.
void AddRow(float* x, FormatId type, const void* y, size_t n);

}  // namespace edgequant
