// A few rows of activations times one panel of 16 rows of weights, in one pass over the panel: bound by memory.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/panel.h"

namespace edgequant {

inline constexpr int kMaxGemvRows = 4;

// Row r of the activations: x[r * x_stride + k], and per group g of weights, at r * group_stride + g: `start` is what
// the sum of products begins with (-zero * sum of the group's activations), `scale` and `sum` multiply the group's
// scales and minima; layouts with two levels take the scale of a header's first group, and `x_sum`, the sums of the
// groups' activations.
struct GemvArgs {
  const PanelLayout* layout;
  const uint8_t* panel;     // aligned to 64
  size_t groups;
  const int8_t* x;          // no -128
  size_t x_stride;
  const int32_t* start;
  const float* scale;
  const float* sum;
  const int32_t* x_sum;
  size_t group_stride;
  float* y;                 // [rows][16], aligned to 64
};
using GemvFn = void (*)(const GemvArgs&);

// The kernel for 1, 2 or 4 rows and this layout, for the best instruction set of this machine.
GemvFn FindGemv(const PanelLayout& layout, int rows);
// What the kernels on this machine take for the zero of a layout's codes.
int GemvZero(const PanelLayout& layout);

}  // namespace edgequant
