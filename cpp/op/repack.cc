#include "op/repack.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "core/threads.h"
#include "kernels/cpu/grid_panel_pack.h"
#include "kernels/cpu/grid_products.h"
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

// Recipes are made once per format: that takes as long as packing some hundred thousand weights.
const PackRecipe& RecipeOf(FormatId format, const PanelLayout& layout) {
  static std::once_flag made[kFormatCount];
  static std::unique_ptr<const PackRecipe> recipes[kFormatCount];
  const size_t i = size_t(format);
  std::call_once(made[i], [&] { recipes[i] = std::make_unique<const PackRecipe>(BlockOf(format), layout); });
  return *recipes[i];
}

struct CompactGrid {
  GridPanel grid;
  std::unique_ptr<const GridRecipe> recipe;
};
// Null if the format has no compact panel.
const CompactGrid* CompactGridOf(FormatId format) {
  static std::once_flag made[kFormatCount];
  static std::unique_ptr<const CompactGrid> grids[kFormatCount];
  const size_t i = size_t(format);
  std::call_once(made[i], [&] {
    auto g = std::make_unique<CompactGrid>();
    PanelLayout layout;
    if (!GridPanelOf(BlockOf(format), &g->grid) || !GridLayoutOf(BlockOf(format), g->grid, &layout)) return;
    g->recipe = std::make_unique<const GridRecipe>(BlockOf(format), layout);
    grids[i] = std::move(g);
  });
  return grids[i].get();
}

// Calls pack(rows of 16, out) for all panels.
template <class Pack>
Panel PackAll(const TensorView& q, const PanelLayout& layout, const Pack& pack) {
  Panel panel = AllocatePanel(NameOf(q.format), layout, q.rows, q.cols);
  const size_t row_bytes = RowBytes(q.format, q.cols), panel_bytes = panel.panel_bytes();
  uint8_t* out = panel.data.get();
  ParallelFor(panel.panels(), 1, [&](size_t begin, size_t end) {
    for (size_t p = begin; p < end; ++p) {
      const uint8_t* rows[kPanelRows];
      for (size_t r = 0; r < kPanelRows; ++r) {
        const size_t row = p * kPanelRows + r;
        rows[r] = row < q.rows ? q.data + row * row_bytes : nullptr;
      }
      pack(rows, out + p * panel_bytes);
    }
  });
  return panel;
}

}  // namespace

static std::atomic<PanelKind> wanted{PanelKind::kAuto};
void SetPanel(PanelKind kind) { wanted = kind; }

PanelKind ChoosePanel(FormatId format, PanelKind kind) {
  constexpr int kMostBits = 8;  // of codes; to look up in a larger grid takes longer than to read more bytes
  const CompactGrid* const g = CompactGridOf(format);
  if (!g) return PanelKind::kFast;
  if (kind == PanelKind::kAuto) kind = wanted;
  if (kind != PanelKind::kAuto) return kind;
  return GridsAreFast() && g->grid.code_bits <= kMostBits ? PanelKind::kCompact : PanelKind::kFast;
}

Panel Repack(const TensorView& q, PanelKind kind) {
  PanelLayout layout;
  if (!PanelOf(BlockOf(q.format), &layout)) Fail("matmul has no panel for weights in ", NameOf(q.format));
  if (ChoosePanel(q.format, kind) == PanelKind::kCompact) {
    const GridRecipe& recipe = *CompactGridOf(q.format)->recipe;
    return PackAll(q, recipe.layout,
                   [&](const uint8_t* const* rows, uint8_t* out) { PackGridPanel(recipe, rows, q.cols, out); });
  }
  const PackRecipe& recipe = RecipeOf(q.format, layout);
  return PackAll(q, layout, [&](const uint8_t* const* rows, uint8_t* out) { PackPanel(recipe, rows, q.cols, out); });
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
