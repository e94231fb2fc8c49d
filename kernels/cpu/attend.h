// What lies between the matrix products of a transformer's decoder, for one token: rows of f32. Lengths of rows and heads
// are multiples of 16.
#pragma once
#include <stddef.h>

namespace edgequant {

constexpr size_t kRowMultiple = 16;

// y = x / root(mean of x^2 + eps) * w. x and y may be the same.
void NormRow(const float* x, const float* w, float eps, size_t n, float* y);

// Rotates a head by position: its two halves (a, b) become (a cos - b sin, b cos + a sin); cos and sin have d numbers.
void RotateHead(float* x, const float* cos, const float* sin, size_t d);

// y (d) = softmax(scale * q K^T) V for keys and values (n, d), n > 0. scores: scratch of n numbers, rounded up to 16.
void AttendHead(const float* q, const float* keys, const float* values, size_t n, size_t d, float scale, float* scores,
                float* y);

// gate = gate / (1 + exp(-gate)) * up.
void GateRow(float* gate, const float* up, size_t n);

// x += y.
void AddRow(float* x, const float* y, size_t n);

}  // namespace edgequant
