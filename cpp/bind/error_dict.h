// The sums of a comparison, as Python sees them.
#pragma once
#include <pybind11/pybind11.h>

#include "op/compare.h"

namespace edgequant {

inline pybind11::dict DictOf(const ErrorStats& sum) {
  pybind11::dict d;
  d["squared_error"] = sum.squared_error;
  d["squared_norm"] = sum.squared_norm;
  d["squared_norm_b"] = sum.squared_norm_b;
  d["dot"] = sum.dot;
  d["weighted_error"] = sum.weighted_error;
  d["weighted_norm"] = sum.weighted_norm;
  d["max_error"] = sum.max_error;
  d["count"] = sum.count;
  return d;
}

}  // namespace edgequant
