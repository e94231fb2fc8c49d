// How far one matrix is from another, in one pass and without a decoded copy.
#pragma once
#include "op/tensor.h"

namespace edgequant {

// Sums over all weights, in double, the same at any thread count: a is the reference, b the approximation, w the
// importance of the column (1 where none is given).
struct ErrorStats {
  double squared_error = 0;     // (a - b)^2
  double squared_norm = 0;      // a^2
  double squared_norm_b = 0;    // b^2
  double dot = 0;               // a * b
  double weighted_error = 0;    // w * (a - b)^2
  double weighted_norm = 0;     // w * a^2
  double max_error = 0;         // largest |a - b|
  double count = 0;             // weights

  ErrorStats& operator+=(const ErrorStats& part);
};

// importance: cols numbers or null.
ErrorStats Compare(const TensorView& a, const TensorView& b, const float* importance = nullptr);

}  // namespace edgequant
