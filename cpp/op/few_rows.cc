#include "op/few_rows.h"

#include <string.h>

#include <algorithm>

namespace edgequant {
namespace {

// Whether weights of both layouts go through the same kernel with the same numbers per group.
bool SameProduct(const PanelLayout& a, const PanelLayout& b) {
  return a.bits == b.bits && a.table == b.table && a.zero == b.zero && a.group == b.group && a.factor == b.factor &&
         a.min_factor == b.min_factor && a.two_level() == b.two_level() && a.grid == b.grid;
}

}  // namespace

void FewRows::Quantize(const RowsView& x, Compute compute) {
  rows_ = x.rows, cols_ = x.cols, digits_ = DigitsOf(compute), groups_ = 0;
  const size_t all = rows_ * size_t(digits_), blocks = (cols_ + kActivationBlock - 1) / kActivationBlock;
  held_ = all % kMaxGemvRows == 3 ? all + 1 : all;
  padded_ = blocks * kActivationBlock;
  q_ = q_memory_.Get<int8_t>(kMaxRows * padded_);
  block_scale_ = block_scale_memory_.Get<float>(kMaxRows * blocks);
  for (size_t i = 0; i < rows_; ++i) {
    const size_t at = i * size_t(digits_);
    QuantizeActivations(x.type, x.Row(i), cols_, digits_, q_ + at * padded_, padded_, block_scale_ + at * blocks,
                        blocks);
  }
  memset(q_ + all * padded_, 0, (held_ - all) * padded_);
}

void FewRows::Fit(const Panel& w) {
  const PanelLayout& layout = w.layout;
  if (groups_ != 0 && SameProduct(layout, layout_)) return;
  four_ = FindGemv(layout, kMaxGemvRows);
  if (held_ % kMaxGemvRows) rest_ = FindGemv(layout, int(held_ % kMaxGemvRows));
  const int zero = GemvZero(layout);
  taken_ = q_;
  if (layout.grid) {
    int8_t* const transposed = transposed_memory_.Get<int8_t>(held_ * padded_);
    TransposeActivations(q_, held_ * padded_, transposed);
    taken_ = transposed;
  }
  layout_ = layout, groups_ = layout.GroupsOf(cols_);
  const size_t all = rows_ * size_t(digits_), blocks = padded_ / kActivationBlock, group = size_t(layout.group);
  start_ = start_memory_.Get<int32_t>(kMaxRows * groups_);
  scale_ = scale_memory_.Get<float>(kMaxRows * groups_);
  sum_ = sum_memory_.Get<float>(kMaxRows * groups_);
  x_sum_ = x_sum_memory_.Get<int32_t>(kMaxRows * groups_);
  for (size_t r = 0; r < all; ++r) {
    SumActivations(q_ + r * padded_, groups_, layout.group, x_sum_ + r * groups_);
    for (size_t g = 0; g < groups_; ++g) {
      const size_t at = r * groups_ + g;
      const float s = block_scale_[r * blocks + g * group / kActivationBlock];
      sum_[at] = float(x_sum_[at]) * s * layout.min_factor;
      scale_[at] = s * layout.factor;
      start_[at] = x_sum_[at] * -zero;
    }
  }
  const size_t unused = (held_ - all) * groups_;
  std::fill_n(start_ + all * groups_, unused, 0);
  std::fill_n(scale_ + all * groups_, unused, 0.0f);
  std::fill_n(sum_ + all * groups_, unused, 0.0f);
  std::fill_n(x_sum_ + all * groups_, unused, 0);
}

void FewRows::Prefetch(const Panel& w, size_t panel) {
  constexpr size_t kAhead = 4096;  // as far ahead as the kernel prefetches
  const uint8_t* p = w.data.get() + panel * w.panel_bytes();
  for (size_t i = 0; i < kAhead; i += kPanelLine) __builtin_prefetch(p + i);
}

void FewRows::Multiply(const Panel& w, size_t panel, float* y) const {
  for (size_t r = 0; r < held_; r += kMaxGemvRows) {  // behind the first, the panel lies in the cache
    const size_t at = r * groups_;
    (held_ - r < kMaxGemvRows ? rest_ : four_)({&w.layout, w.data.get() + panel * w.panel_bytes(), groups_,
                                                taken_ + r * padded_, padded_, start_ + at, scale_ + at, sum_ + at,
                                                x_sum_ + at, groups_, y + r * kPanelRows});
  }
  if (digits_ == 1) return;
  for (size_t i = 0; i < rows_; ++i) {
    const float* from = y + i * size_t(digits_) * kPanelRows;
    for (size_t k = 0; k < kPanelRows; ++k) {
      float sum = from[k];
      for (int d = 1; d < digits_; ++d) sum += from[size_t(d) * kPanelRows + k];
      y[i * kPanelRows + k] = sum;
    }
  }
}

}  // namespace edgequant
