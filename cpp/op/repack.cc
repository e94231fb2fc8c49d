#include "op/repack.h"

#include <string.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "core/threads.h"
#include "kernels/cpu/panel_pack.h"

namespace edgequant {
bool CanRepack(FormatId format) {
  PanelLayout layout;
  return PanelOf(BlockOf(format), &layout);
}

Panel AllocatePanel(const std::string& format, const PanelLayout& layout, size_t rows, size_t cols) {
  Panel panel;
  panel.format = format;
  panel.layout = layout;
  panel.rows = rows;
  panel.cols = cols;
  panel.bytes = panel.panel_bytes() * panel.panels();
  panel.data = AllocateInSlab(panel.bytes);
  return panel;
}

namespace {

// Made once per format: that takes as long as packing some hundred thousand weights.
const PackRecipe& RecipeOf(FormatId format, const PanelLayout& layout) {
  static std::once_flag made[kFormatCount];
  static std::unique_ptr<const PackRecipe> recipes[kFormatCount];
  const size_t i = size_t(format);
  std::call_once(made[i], [&] { recipes[i] = std::make_unique<const PackRecipe>(BlockOf(format), layout); });
  return *recipes[i];
}

}  // namespace

Panel Repack(const TensorView& q) {
  PanelLayout layout;
  if (!PanelOf(BlockOf(q.format), &layout)) Fail("matmul has no panel for weights in ", NameOf(q.format));
  Panel panel = AllocatePanel(NameOf(q.format), layout, q.rows, q.cols);
  const size_t row_bytes = RowBytes(q.format, q.cols), panel_bytes = panel.panel_bytes();
  uint8_t* out = panel.data.get();
  const PackRecipe& recipe = RecipeOf(q.format, layout);
  ParallelFor(panel.panels(), 1, [&](size_t begin, size_t end) {
    for (size_t p = begin; p < end; ++p) {
      const uint8_t* rows[kPanelRows];
      for (size_t r = 0; r < kPanelRows; ++r) {
        const size_t row = p * kPanelRows + r;
        rows[r] = row < q.rows ? q.data + row * row_bytes : nullptr;
      }
      PackPanel(recipe, rows, q.cols, out + p * panel_bytes);
    }
  });
  return panel;
}

SlabBytes CopyToNewMemory(const uint8_t* data, size_t bytes, size_t size) {
  SlabBytes copy = AllocateInSlab(size);
  ParallelFor(size, size_t{128} << 10, [&](size_t begin, size_t end) {
    const size_t count = std::min(end - begin, bytes);
    const size_t from = std::min(size_t(double(begin) / double(size) * double(bytes)), bytes - count);
    memcpy(copy.get() + begin, data + from, count);
  });
  return copy;
}

}  // namespace edgequant
