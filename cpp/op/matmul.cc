#include "op/matmul.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/panel_limits.h"
#include "op/dequantize.h"
#include "op/few_rows.h"

namespace edgequant {
namespace {

static_assert(kBlockK == int(kActivationBlock));

const uint8_t* RowOf(const RowsView& x, size_t i) {
  return static_cast<const uint8_t*>(x.data) + ptrdiff_t(i) * x.stride;
}

// Adds the bias, converts and writes columns [first, first + n) of row i.
void WriteRow(const MutableRowsView& y, size_t i, size_t first, size_t n, float* sums, const float* bias) {
  if (bias)
    for (size_t k = 0; k < n; ++k) sums[k] += bias[first + k];
  const size_t size = y.type == FormatId::kF32 ? 4 : 2;
  StoreOutputs(sums, n, y.type, static_cast<uint8_t*>(y.data) + ptrdiff_t(i) * y.stride + first * size);
}

// ---- A few rows: fused

constexpr size_t kGemvTask = size_t{128} << 10;  // bytes of panels handed out at a time

void MultiplyFewRows(const RowsView& x, Compute compute, const Panel& w, const MutableRowsView& y, const float* bias) {
  static thread_local FewRows input;
  input.Quantize(x, compute);
  input.Fit(w);
  const FewRows& in = input;
  const size_t grain = std::max<size_t>(1, kGemvTask / std::max<size_t>(1, w.panel_bytes()));
  ParallelFor(w.panels(), grain, [&](size_t begin, size_t end) {
    alignas(64) float sums[kMaxGemvRows * kPanelRows];
    for (size_t p = begin; p < end; ++p) {
      in.Multiply(w, p, sums);
      const size_t column = p * kPanelRows, n = std::min<size_t>(kPanelRows, w.rows - column);
      for (size_t i = 0; i < x.rows; ++i) WriteRow(y, i, column, n, sums + i * kPanelRows, bias);
    }
  });
}

// ---- Many rows: decode a strip, multiply tiles

constexpr size_t kRowsAtOnce = 256;  // rows of activations (digits) whose sums a thread keeps in its L2 cache

struct GemmInput {
  size_t tiles, blocks, groups_per_block;
  size_t groups_per_header, pairs_per_header, pairs_per_block;
  Scratch q_memory, scale_memory, sum_memory, pair_memory;
  uint8_t* q;      // [block][tile][256 / 4][4][4]
  float* scale;    // [block][tile][4]
  float* sum;      // [block][tile][group][4]; layouts with two levels have pairs instead
  int32_t* pair;   // [block][tile][pair][4]

  void Fill(const RowsView& x, int digits, const Panel& w) {
    const PanelLayout& layout = w.layout;
    const size_t rows = x.rows * size_t(digits), per_tile = kTileRows / size_t(digits);
    tiles = (rows + kTileRows - 1) / kTileRows;
    blocks = (w.cols + kBlockK - 1) / kBlockK;
    groups_per_block = size_t(kBlockK / layout.group);
    q = q_memory.Get<uint8_t>(tiles * blocks * kTileRows * kBlockK);
    scale = scale_memory.Get<float>(tiles * blocks * kTileRows);
    sum = sum_memory.Get<float>(tiles * blocks * groups_per_block * kTileRows);
    groups_per_header = size_t(layout.groups_per_header);
    pairs_per_header = (groups_per_header + 1) / 2;
    pairs_per_block = layout.two_level() ? groups_per_block / groups_per_header * pairs_per_header : 0;
    pair = pair_memory.Get<int32_t>(tiles * blocks * pairs_per_block * kTileRows);
    const bool plus128 = ActivationsPlus128();
    const float min_ratio = layout.min_factor / layout.factor;
    ParallelFor(tiles, 1, [&](size_t begin, size_t end) {
      static thread_local Scratch row_memory, scale_row_memory;
      const size_t padded = blocks * kBlockK;
      int8_t* row = row_memory.Get<int8_t>(kTileRows * padded);
      float* row_scale = scale_row_memory.Get<float>(kTileRows * blocks);
      int32_t sums[kBlockK / 16];
      for (size_t t = begin; t < end; ++t) {
        for (size_t i = 0; i < per_tile; ++i) {
          const size_t from = t * per_tile + i, to = i * size_t(digits);
          if (from < x.rows) {
            QuantizeActivations(x.type, RowOf(x, from), w.cols, digits, row + to * padded, padded,
                                row_scale + to * blocks, blocks);
          } else {
            memset(row + to * padded, 0, padded);
            std::fill_n(row_scale + to * blocks, blocks, 0.0f);
          }
        }
        for (size_t b = 0; b < blocks; ++b) {
          const size_t at = b * tiles + t;
          InterleaveActivations(row + b * kBlockK, padded, kBlockK, plus128, q + at * kTileRows * kBlockK);
          for (size_t r = 0; r < kTileRows; ++r) {
            scale[at * kTileRows + r] = row_scale[r * blocks + b] * layout.factor;
            SumActivations(row + r * padded + b * kBlockK, groups_per_block, layout.group, sums);
            for (size_t g = 0; g < groups_per_block && pairs_per_block == 0; ++g)
              sum[(at * groups_per_block + g) * kTileRows + r] = float(sums[g]) * min_ratio;
            for (size_t p = 0; p < pairs_per_block; ++p) {
              const size_t first = p / pairs_per_header * groups_per_header + p % pairs_per_header * 2;
              const int32_t second = p % pairs_per_header * 2 + 1 < groups_per_header ? sums[first + 1] : 0;
              pair[(at * pairs_per_block + p) * kTileRows + r] = int32_t(uint32_t(second) << 16 | (uint32_t(sums[first]) & 0xffff));
            }
          }
        }
      }
    });
  }
};

// What one thread needs for a strip.
struct StripMemory {
  Scratch values, scale, minimum, start, sub_scale, sub_minimum, sums;
  DecodedStrip Strip(int panels, size_t groups) {
    const size_t columns = size_t(panels) * kPanelRows;
    return {panels, values.Get<int8_t>(kBlockK * columns), scale.Get<float>(groups * columns),
            minimum.Get<float>(groups * columns), start.Get<int32_t>(groups * columns),
            sub_scale.Get<int32_t>(groups * columns), sub_minimum.Get<int32_t>(groups * columns)};
  }
};

// Rows of activations [first_tile, last_tile) times panels [first_panel, first_panel + panels).
void MultiplyStrip(const GemmInput& in, size_t first_tile, size_t last_tile, const Panel& w, size_t first_panel,
                   int panels, int digits, const MutableRowsView& y, const float* bias) {
  static thread_local StripMemory memory;
  const PanelLayout& layout = w.layout;
  const DecodedStrip strip = memory.Strip(panels, in.groups_per_block);
  const size_t columns = size_t(panels) * kPanelRows, groups = layout.GroupsOf(w.cols), panel_bytes = w.panel_bytes();
  float* sums = memory.sums.Get<float>(kRowsAtOnce * columns);
  memset(sums, 0, (last_tile - first_tile) * kTileRows * columns * sizeof(float));
  const DecodeFn decode = FindDecode(layout);
  const TileFn multiply = FindTile(layout, panels);
  for (size_t b = 0; b < in.blocks; ++b) {
    const size_t first = b * in.groups_per_block, count = std::min(in.groups_per_block, groups - first);
    for (int v = 0; v < panels; ++v)
      decode(layout, w.data.get() + (first_panel + size_t(v)) * panel_bytes, first, count, v, strip);
    for (size_t t = first_tile; t < last_tile; ++t) {
      const size_t at = b * in.tiles + t;
      multiply({&strip, in.q + at * kTileRows * kBlockK, in.sum + at * in.groups_per_block * kTileRows,
                in.pair + at * in.pairs_per_block * kTileRows, in.scale + at * kTileRows, int(count), layout.group,
                layout.groups_per_header, sums + (t - first_tile) * kTileRows * columns});
    }
  }
  const size_t column = first_panel * kPanelRows, n = std::min(columns, w.rows - column),
               per_tile = kTileRows / size_t(digits);
  for (size_t i = first_tile * per_tile; i < std::min(last_tile * per_tile, y.rows); ++i) {
    float* s = sums + (i * size_t(digits) - first_tile * kTileRows) * columns;
    for (int d = 1; d < digits; ++d)
      for (size_t k = 0; k < n; ++k) s[k] += s[size_t(d) * columns + k];
    WriteRow(y, i, column, n, s, bias);
  }
}

void MultiplyManyRows(const RowsView& x, int digits, const Panel& w, const MutableRowsView& y, const float* bias) {
  static thread_local GemmInput input;
  input.Fill(x, digits, w);
  const GemmInput& in = input;
  const size_t strip_panels = size_t(StripPanels()), strips = (w.panels() + strip_panels - 1) / strip_panels;
  const size_t tiles_at_once = kRowsAtOnce / kTileRows, chunks = (in.tiles + tiles_at_once - 1) / tiles_at_once;
  ParallelFor(strips * chunks, 1, [&](size_t begin, size_t) {
    const size_t strip = begin / chunks, chunk = begin % chunks, first_panel = strip * strip_panels;
    MultiplyStrip(in, chunk * tiles_at_once, std::min(in.tiles, (chunk + 1) * tiles_at_once), w, first_panel,
                  int(std::min(strip_panels, w.panels() - first_panel)), digits, y, bias);
  });
}

void MultiplyRows(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute, const float* bias) {
  if (FewRows::Hold(x.rows, compute)) MultiplyFewRows(x, compute, w, y, bias);
  else MultiplyManyRows(x, DigitsOf(compute), w, y, bias);
}

constexpr size_t kRotatedAtOnce = 1 << 20;  // numbers

// Weights that lie there rotated: so must the activations.
void MultiplyRotated(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute, const float* bias) {
  const size_t step = std::max<size_t>(kRowsAtOnce, kRotatedAtOnce / x.cols), row_bytes = x.cols * sizeof(float);
  std::vector<float> rotated(std::min(step, x.rows) * x.cols);
  for (size_t first = 0; first < x.rows; first += step) {
    const size_t rows = std::min(step, x.rows - first);
    ParallelFor(rows, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        float* const row = &rotated[i * x.cols];
        DequantizeRow(x.type, RowOf(x, first + i), x.cols, row);
        w.rotation->Forward(row);
      }
    });
    MultiplyRows({FormatId::kF32, rotated.data(), rows, x.cols, ptrdiff_t(row_bytes)}, w,
                 {y.type, static_cast<uint8_t*>(y.data) + ptrdiff_t(first) * y.stride, rows, y.cols, y.stride}, compute, bias);
  }
}

}  // namespace

void Matmul(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute, const float* bias) {
  if (x.cols != w.cols) Fail("x has rows of ", x.cols, " numbers, but the weights have ", w.cols, " columns");
  if (y.rows != x.rows || y.cols != w.rows)
    Fail("the result is ", x.rows, " x ", w.rows, ", but the output is ", y.rows, " x ", y.cols);
  if (x.rows == 0 || w.rows == 0) return;
  if (w.rotation) MultiplyRotated(x, w, y, compute, bias);
  else MultiplyRows(x, w, y, compute, bias);
}

void ReadPanels(const Panel& w) {
  std::atomic<int32_t> sink{0};  // or the compiler would not read
  ParallelFor(w.bytes / kPanelLine / 4 * 4 * kPanelLine, kGemvTask,
              [&](size_t begin, size_t end) { sink += ReadMemory(w.data.get() + begin, end - begin); });
}

size_t MultiplyAtPeak(size_t products) {
  const size_t tasks = size_t(NumThreads()) * 8, turns = products / kProductsPerTurn / tasks + 1;
  std::atomic<int32_t> sink{0};
  ParallelFor(tasks, 1, [&](size_t, size_t) { sink += MultiplyBytes(turns); });
  return tasks * turns * kProductsPerTurn;
}

}  // namespace edgequant
