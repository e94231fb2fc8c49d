#include "algo/grid.h"

#include <map>
#include <mutex>
#include <vector>

#include "format/decode.h"

namespace edgequant {
namespace {

// Tables are built at the first use of a grid and live as long as the process.
const GridIndex& IndexOf(const GridTable& grid) {
  static std::mutex mutex;
  static auto& all = *new std::map<const GridTable*, GridIndex>;
  const std::lock_guard<std::mutex> lock(mutex);
  return all.try_emplace(&grid, grid).first->second;
}

// The weights of ggml's own quantizers. Those that demand an importance get plain squared errors without one.
void SetWeights(FormatId to, const QuantizeOptions& options, GridProblem* p) {
  if (options.objective == Objective::kPlain) return;
  const bool small = to == FormatId::kIQ2_XXS || to == FormatId::kIQ2_XS;
  if (options.importance) {
    p->weights = GridWeights::kImportanceRms;
    p->sigma = small ? 1.0f : 2.0f;
  } else if (!small && to != FormatId::kIQ1_S) {
    p->weights = GridWeights::kSquare;
    // ggml adds nothing for the others, and then hardly sees the small weights; with this both its measure and the
    // plain squared error end below its own.
    p->sigma = to == FormatId::kIQ2_S ? 0.5f : 0.4f;
  }
}

// Curves through three or four trials place the scales well enough; picking the points of neighbouring scales then
// gains more than further trials. The ternary grids have few scales and are large, so there they are not worth it.
GridTuning TuningOf(const GridProblem& p, Effort effort) {
  const bool ternary = p.signs == GridSigns::kNone, best = effort == Effort::kBest;
  GridTuning t;
  t.samples = best ? 6 : ternary ? 3 : 4;
  t.low = ternary ? 0.6f : best ? 0.7f : 0.8f;
  t.high = best ? 1.4f : 1.2f;
  t.high_max = ternary ? 0.85f : best ? 1.2f : 1.0f;
  t.candidates = best ? 64 : ternary || effort == Effort::kFast ? 16 : 32;
  const float top = float(2 * p.scales - 1) / 31;  // the largest integer scale, in 31sts
  t.max_low = (best ? 18 : 27) * top;
  t.max_high = (best ? 40 : 35) * top;
  t.supers = !best ? 1 : ternary ? 3 : 6;
  t.neighbours = best ? 5 : ternary ? 1 : effort == Effort::kDefault ? 3 : p.index->dim == 4 ? 2 : 1;
  t.refine = best ? 3 : 0;
  t.both = best;
  t.coarse = !best && p.weights != GridWeights::kSquare;  // there, few weights make up most of a cost
  return t;
}

}  // namespace

bool IsGrid(FormatId id) { return BlockOf(id).map.kind == MapKind::kGrid; }

float GridLimit(FormatId id) {
  const Block& f = BlockOf(id);
  const GridIndex& index = IndexOf(*f.map.grid);
  return 65504.0f * f.scale.factor * ((1 << f.scale.sub[0].bits) - 0.5f) * index.value[index.levels - 1];
}

GridProblem GridProblemOf(FormatId to, const QuantizeOptions& options) {
  const Block& f = BlockOf(to);
  GridProblem p;
  p.index = &IndexOf(*f.map.grid);
  p.signs = f.map.signs.kind == FieldKind::kNone ? GridSigns::kNone
            : f.map.signs.bits == 7              ? GridSigns::kEven
                                                 : GridSigns::kFree;
  p.sub = f.scale.sub_group;
  p.scales = 1 << f.scale.sub[0].bits;
  p.unit = f.scale.factor / 2;  // (k + 1/2) * factor = (2 k + 1) * unit
  p.delta = f.map.shift;
  if (p.delta != 0) p.delta_group = FirstBit(f.map.shift_sign, 0) == FirstBit(f.map.shift_sign, 1) ? p.sub : 8;
  SetWeights(to, options, &p);
  p.tuning = TuningOf(p, options.effort);
  p.mirror = options.effort == Effort::kBest && p.signs == GridSigns::kNone;
  if (options.effort == Effort::kBest) p.also = TuningOf(p, Effort::kDefault);  // never worse than less effort
  else if (p.signs != GridSigns::kNone) p.even = TuningOf(p, Effort::kBest);
  return p;
}

void QuantizeGrid(const GridProblem& problem, FormatId to, const float* x, size_t rows, size_t cols,
                  const float* importance, uint8_t* out) {
  std::vector<GridBlock> blocks(rows * cols / kGridBlock);
  SearchGrid(problem, x, blocks.size(), importance, 0, cols, blocks.data());
  PackGridBlocks(to, blocks.data(), blocks.size(), out);
}

}  // namespace edgequant
