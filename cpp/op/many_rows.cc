#include "op/many_rows.h"

#include <string.h>

#include <algorithm>
#include <numeric>

#include "core/threads.h"
#include "kernels/cpu/gemm.h"

namespace edgequant {
namespace {

static_assert(kBlockK == int(kActivationBlock));

constexpr size_t kTilesAhead = 4;  // of results that come into the L2 cache
constexpr size_t kTilesAtOnce = ManyRows::kAtOnce / kTileRows;

// What one thread needs for a strip.
struct StripMemory {
  Scratch values, scale, minimum, sub_scale, sub_minimum, sums;
  DecodedStrip Strip(int panels, size_t groups) {
    const size_t columns = size_t(panels) * kPanelRows;
    return {panels, TileRun(), values.Get<int8_t>(kBlockK * columns), scale.Get<float>(groups * columns),
            minimum.Get<float>(groups * columns), sub_scale.Get<int32_t>(groups * columns),
            sub_minimum.Get<int32_t>(groups * columns)};
  }
};

uint8_t* At(const MutableRowsView& y, size_t i, size_t column) {
  return static_cast<uint8_t*>(y.data) + ptrdiff_t(i) * y.stride + column * (y.type == FormatId::kF32 ? 4 : 2);
}

// Rows of y lie so far apart that each is a miss of its own when it is written. kLevel: of the cache, 1 or 2.
template <int kLevel>
void PrefetchRow(const MutableRowsView& y, size_t i, size_t first, size_t n) {
  for (const uint8_t *p = At(y, i, first), *end = At(y, i, first + n); p < end; p += kPanelLine)
    __builtin_prefetch(p, 1, 4 - kLevel);
}

}  // namespace

void WriteRow(const MutableRowsView& y, size_t i, size_t first, size_t n, float* sums, const PerColumn& then) {
  if (then.scale)
    for (size_t k = 0; k < n; ++k) sums[k] *= then.scale[first + k];
  if (then.bias)
    for (size_t k = 0; k < n; ++k) sums[k] += then.bias[first + k];
  StoreOutputs(sums, n, y.type, At(y, i, first));
}

void ManyRows::Fill(const RowsView& x, Compute compute, const Panel& w) {
  digits_ = DigitsOf(compute);
  const PanelLayout& layout = w.layout;
  const size_t rows = x.rows * size_t(digits_), per_tile = kTileRows / size_t(digits_);
  tiles_ = (rows + kTileRows - 1) / kTileRows;
  blocks_ = (w.cols + kBlockK - 1) / kBlockK;
  groups_per_block_ = size_t(kBlockK / layout.group);
  q_ = q_memory_.Get<uint8_t>(tiles_ * blocks_ * kTileRows * kBlockK);
  scale_ = scale_memory_.Get<float>(tiles_ * blocks_ * kTileRows);
  const size_t groups_per_header = size_t(layout.groups_per_header), pairs_per_header = (groups_per_header + 1) / 2;
  const size_t groups_per_start = layout.fold != 0 ? groups_per_header : 1;
  starts_per_block_ = groups_per_block_ / groups_per_start;
  sums_per_block_ = layout.minima && !layout.two_level() ? groups_per_block_ : 0;
  pairs_per_block_ =
      layout.minima && layout.two_level() ? groups_per_block_ / groups_per_header * pairs_per_header : 0;
  start_ = start_memory_.Get<int32_t>(tiles_ * blocks_ * starts_per_block_ * kTileRows);
  sum_ = sum_memory_.Get<float>(tiles_ * blocks_ * sums_per_block_ * kTileRows);
  pair_ = pair_memory_.Get<int32_t>(tiles_ * blocks_ * pairs_per_block_ * kTileRows);
  const int run = TileRun(), zero = TileZero(layout);
  const float min_ratio = layout.min_factor / layout.factor;
  ParallelFor(tiles_, 1, [&](size_t begin, size_t end) {
    static thread_local Scratch row_memory, scale_row_memory;
    const size_t padded = blocks_ * kBlockK;
    int8_t* row = row_memory.Get<int8_t>(kTileRows * padded);
    float* row_scale = scale_row_memory.Get<float>(kTileRows * blocks_);
    int32_t sums[kBlockK / 16];
    for (size_t t = begin; t < end; ++t) {
      for (size_t i = 0; i < per_tile; ++i) {
        const size_t from = t * per_tile + i, to = i * size_t(digits_);
        if (from < x.rows) {
          QuantizeActivations(x.type, x.Row(from), w.cols, digits_, row + to * padded, padded, row_scale + to * blocks_,
                              blocks_);
        } else {
          memset(row + to * padded, 0, padded);
          std::fill_n(row_scale + to * blocks_, blocks_, 0.0f);
        }
      }
      if (layout.grid) TransposeActivations(row, kTileRows * padded, row);
      for (size_t b = 0; b < blocks_; ++b) {
        const size_t at = b * tiles_ + t;
        InterleaveActivations(row + b * kBlockK, padded, kBlockK, run, q_ + at * kTileRows * kBlockK);
        for (size_t r = 0; r < kTileRows; ++r) {
          scale_[at * kTileRows + r] = row_scale[r * blocks_ + b] * layout.factor;
          SumActivations(row + r * padded + b * kBlockK, groups_per_block_, layout.group, sums);
          for (size_t i = 0; i < starts_per_block_; ++i)
            start_[(at * starts_per_block_ + i) * kTileRows + r] =
                -zero * std::accumulate(sums + i * groups_per_start, sums + (i + 1) * groups_per_start, 0);
          for (size_t g = 0; g < sums_per_block_; ++g)
            sum_[(at * sums_per_block_ + g) * kTileRows + r] = float(sums[g]) * min_ratio;
          for (size_t p = 0; p < pairs_per_block_; ++p) {
            const size_t first = p / pairs_per_header * groups_per_header + p % pairs_per_header * 2;
            const int32_t second = p % pairs_per_header * 2 + 1 < groups_per_header ? sums[first + 1] : 0;
            pair_[(at * pairs_per_block_ + p) * kTileRows + r] =
                int32_t(uint32_t(second) << 16 | (uint32_t(sums[first]) & 0xffff));
          }
        }
      }
    }
  });
}

size_t ManyRows::Chunks() const { return (tiles_ + kTilesAtOnce - 1) / kTilesAtOnce; }

size_t ManyRows::Tasks(const Panel& w) const {
  const size_t strip = size_t(StripPanels());
  return (w.panels() + strip - 1) / strip * Chunks();
}

void ManyRows::Multiply(const Panel& w, size_t task, const Rows& rows, const MutableRowsView& y,
                        const PerColumn& then) const {
  const size_t chunk = task % Chunks(), first_panel = task / Chunks() * size_t(StripPanels());
  const size_t first_tile = chunk * kTilesAtOnce, last_tile = std::min(tiles_, first_tile + kTilesAtOnce);
  const int panels = int(std::min(size_t(StripPanels()), w.panels() - first_panel));
  static thread_local StripMemory memory;
  const PanelLayout& layout = w.layout;
  const DecodedStrip strip = memory.Strip(panels, groups_per_block_);
  const size_t columns = size_t(panels) * kPanelRows, groups = layout.GroupsOf(w.cols), panel_bytes = w.panel_bytes();
  const uint8_t* const data = w.data.get() + first_panel * panel_bytes;
  const size_t column = first_panel * kPanelRows, n = std::min(columns, w.rows - column);
  const size_t per_tile = kTileRows / size_t(digits_);
  const DecodeFn decode = FindDecode(layout);
  const size_t rest = rows.count % per_tile;
  const TileFn multiply = FindTile(layout, panels);
  const TileFn multiply_last = rest == 0 ? multiply : FindTile(layout, panels, int(rest) * digits_);
  float* const sums = memory.sums.Get<float>(kAtOnce * columns);
  memset(sums, 0, (last_tile - first_tile) * kTileRows * columns * sizeof(float));
  // While a block is multiplied, the next comes into the cache, or the first one of the task that this thread is likely
  // to get next.
  const size_t next_task = std::min(task + size_t(NumThreads()), Tasks(w) - 1);
  const uint8_t* const next_strip = w.data.get() + next_task / Chunks() * size_t(StripPanels()) * panel_bytes;
  TileArgs args{};
  args.strip = &strip, args.group = layout.group, args.groups_per_header = layout.groups_per_header;
  args.ahead_stride = panel_bytes;
  const size_t steps = (last_tile - first_tile) * kBlockK / 4;
  args.ahead_step = layout.PanelBytes(2 * kBlockK) / 2 / steps + 1;
  for (size_t b = 0; b < blocks_; ++b) {
    const size_t first = b * groups_per_block_, count = std::min(groups_per_block_, groups - first);
    const bool last = b + 1 == blocks_;
    for (int v = 0; v < panels; ++v) decode(layout, data + size_t(v) * panel_bytes, first, count, v, strip);
    args.groups = int(count);
    args.ahead = last ? next_strip : data + layout.BlockAt(first + count);
    args.y = sums;
    for (size_t t = first_tile; t < last_tile; ++t) {
      const size_t at = b * tiles_ + t, row = t * per_tile, end = last ? std::min(row + per_tile, rows.count) : row;
      const size_t soon = row + kTilesAhead * per_tile, soon_end = last ? std::min(soon + per_tile, rows.count) : 0;
      for (size_t i = soon; i < soon_end; ++i) PrefetchRow<2>(y, rows[i], column, n);
      for (size_t i = row; i < end; ++i) PrefetchRow<1>(y, rows[i], column, n);
      args.x = q_ + at * kTileRows * kBlockK;
      args.x_scale = scale_ + at * kTileRows;
      args.x_start = start_ + at * starts_per_block_ * kTileRows;
      args.x_sum = sum_ + at * sums_per_block_ * kTileRows;
      args.x_pair = pair_ + at * pairs_per_block_ * kTileRows;
      (t + 1 == tiles_ ? multiply_last : multiply)(args);
      for (size_t i = row; i < end; ++i) {
        float* const s = args.y + (i - row) * size_t(digits_) * columns;
        for (int d = 1; d < digits_; ++d)
          for (size_t k = 0; k < n; ++k) s[k] += s[size_t(d) * columns + k];
        WriteRow(y, rows[i], column, n, s, then);
      }
      args.y += kTileRows * columns;
      args.ahead += args.ahead_step * (kBlockK / 4);
    }
  }
}

}  // namespace edgequant
