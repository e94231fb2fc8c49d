#include "op/repack.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "core/half.h"
#include "core/scratch.h"
#include "core/threads.h"
#include "format/e8p.h"
#include "kernels/cpu/grid_panel_pack.h"
#include "kernels/cpu/grid_products.h"
#include "kernels/cpu/panel_pack.h"
#include "op/dequantize.h"

namespace edgequant {

void PanelInput::Apply(FormatId type, const void* x, float* out) const {
  static thread_local Scratch memory;
  float* const row = order.empty() ? out : memory.Get<float>(cols + 1);
  DequantizeRow(type, static_cast<const uint8_t*>(x), cols, row);
  for (size_t k = 0; k < scale.size(); ++k) row[k] *= scale[k];
  if (rotation) rotation->Forward(row);
  if (order.empty()) return;
  row[cols] = 0;
  for (size_t k = 0; k < order.size(); ++k) out[k] = row[order[k]];
}

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

Panel ViewNumbers(const TensorView& q) {
  if (q.format != FormatId::kF32 && q.format != FormatId::kF16 && q.format != FormatId::kBF16)
    Fail("weights in ", NameOf(q.format), " are no plain numbers");
  FloatWeights floats;
  floats.type = q.format;
  floats.data = q.data;
  Panel panel;
  panel.format = NameOf(q.format);
  panel.rows = q.rows, panel.cols = q.cols;
  panel.bytes = q.rows * RowBytes(q.format, q.cols);
  panel.floats = std::make_shared<const FloatWeights>(std::move(floats));
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

struct PanelOfGrid {
  GridPanel grid;
  std::unique_ptr<const GridRecipe> recipe;
};
using GridOf = bool (*)(const Block&, GridPanel*);  // GridPanelOf or TritPanelOf
// Null if the format has no such panel.
std::unique_ptr<const PanelOfGrid> MakePanelOfGrid(GridOf grid_of, const Block& block) {
  auto g = std::make_unique<PanelOfGrid>();
  PanelLayout layout;
  if (!grid_of(block, &g->grid) || !GridLayoutOf(block, g->grid, &layout)) return nullptr;
  g->recipe = std::make_unique<const GridRecipe>(block, layout);
  return g;
}
template <GridOf kGridOf>
const PanelOfGrid* PanelOfGridOf(FormatId format) {
  static std::once_flag made[kFormatCount];
  static std::unique_ptr<const PanelOfGrid> grids[kFormatCount];
  const size_t i = size_t(format);
  std::call_once(made[i], [&] { grids[i] = MakePanelOfGrid(kGridOf, BlockOf(format)); });
  return grids[i].get();
}
const PanelOfGrid* CompactOf(FormatId format) { return PanelOfGridOf<GridPanelOf>(format); }
// What the fast panel is where bytes are looked up in registers.
const PanelOfGrid* FastTritsOf(FormatId format) {
  return GridsAreFast() ? PanelOfGridOf<TritPanelOf>(format) : nullptr;
}
const PanelOfGrid& CompactE8P() {
  static const std::unique_ptr<const PanelOfGrid> grid = MakePanelOfGrid(GridPanelOf, kE8PBlock);
  return *grid;
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

static PanelKind ChooseFor(const GridPanel& grid, bool trits, PanelKind kind) {
  constexpr int kMostBits = 8;  // of codes; to look up in a larger grid takes longer than to read trits
  if (kind == PanelKind::kAuto) kind = wanted;
  if (kind != PanelKind::kAuto) return kind;
  return GridsAreFast() && (grid.code_bits <= kMostBits || !trits) ? PanelKind::kCompact : PanelKind::kFast;
}
PanelKind ChoosePanel(FormatId format, PanelKind kind) {
  const PanelOfGrid* const g = CompactOf(format);
  return g ? ChooseFor(g->grid, FastTritsOf(format) != nullptr, kind) : PanelKind::kFast;
}
bool ChoosesCompactE8P(PanelKind kind) { return ChooseFor(CompactE8P().grid, false, kind) == PanelKind::kCompact; }

Panel Repack(const TensorView& q, PanelKind kind) {
  PanelLayout layout;
  if (!PanelOf(BlockOf(q.format), &layout)) Fail("matmul has no panel for weights in ", NameOf(q.format));
  const bool compact = ChoosePanel(q.format, kind) == PanelKind::kCompact;
  if (const PanelOfGrid* const g = compact ? CompactOf(q.format) : FastTritsOf(q.format)) {
    const GridRecipe& recipe = *g->recipe;
    return PackAll(q, recipe.layout,
                   [&](const uint8_t* const* rows, uint8_t* out) { PackGridPanel(recipe, rows, q.cols, out); });
  }
  const PackRecipe& recipe = RecipeOf(q.format, layout);
  return PackAll(q, layout, [&](const uint8_t* const* rows, uint8_t* out) { PackPanel(recipe, rows, q.cols, out); });
}

Panel RepackE8P(const uint64_t* words, size_t rows, size_t cols, float scale) {
  if (rows % kE8PTileRows != 0 || cols % kGridBlock != 0)
    Fail("a compact panel of E8P has multiples of 16 rows and 256 columns, not ", rows, " x ", cols);
  const GridRecipe& recipe = *CompactE8P().recipe;
  PanelLayout layout = recipe.layout;
  layout.factor *= scale;
  Panel panel = AllocatePanel("quip.e8p", layout, rows, cols);
  const size_t blocks = cols / kGridBlock, row_bytes = blocks * size_t(kE8PBlock.bytes), vectors = cols / 8;
  const uint16_t one = F16FromF32(1);
  ParallelFor(panel.panels(), 1, [&](size_t begin, size_t end) {
    std::vector<uint8_t> own(kPanelRows * row_bytes);
    const uint8_t* from[kPanelRows];
    for (size_t r = 0; r < kPanelRows; ++r) from[r] = &own[r * row_bytes];
    for (size_t p = begin; p < end; ++p) {
      std::fill(own.begin(), own.end(), uint8_t{0});
      for (size_t r = 0; r < kPanelRows; ++r)
        for (size_t v = 0; v < vectors; ++v) {
          uint8_t* const block = &own[r * row_bytes + v / 32 * size_t(kE8PBlock.bytes)];
          const E8PPlace at = E8PPlaceOf(p * kPanelRows + r, v, vectors);
          const uint16_t code = E8PCodeOfWord(words[at.word], at.at);
          const E8PSigns s = E8PSignsOf(code);
          memcpy(block, &one, 2);
          block[2 + v % 32] = uint8_t(code >> 8);
          block[kE8PSigns + v % 32] = s.signs;
          block[kE8PShifts + v % 32 / 8] |= uint8_t(s.down << v % 8);
        }
      PackGridPanel(recipe, from, cols, panel.data.get() + p * panel.panel_bytes());
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
