#include "algo/importance.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "format/shape.h"

namespace edgequant {

std::vector<float> PrepareImportance(const float* importance, size_t cols, const Block& block) {
  constexpr float kTrace = 1e-6f;
  std::vector<float> out;
  if (!importance) return out;
  for (size_t c = 0; c < cols; ++c)
    if (!(importance[c] >= 0) || std::isinf(importance[c]))
      Fail("importance of column ", c, " is ", importance[c], ", which is not a finite number from 0 up");
  out.assign(importance, importance + cols);
  const size_t n = size_t(block.n), group = size_t(ShapeOf(block).group);
  for (size_t b = 0; b < cols; b += n) {
    float* const first = out.data() + b;
    const float most = *std::max_element(first, first + n);
    for (size_t c = 0; c < n; ++c) first[c] = most > 0 ? first[c] / most : 1;
    for (size_t g = 0; g < n; g += group)
      if (*std::max_element(first + g, first + g + group) < kTrace) std::fill(first + g, first + g + group, kTrace);
  }
  return out;
}

}  // namespace edgequant
