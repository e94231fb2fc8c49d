#include "op/matmul.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/cpu/panel_limits.h"
#include "op/few_rows.h"
#include "op/float_rows.h"
#include "op/many_rows.h"

namespace edgequant {
namespace {

// ---- A few rows: fused

constexpr size_t kGemvTask = size_t{128} << 10;  // bytes of panels handed out at a time

size_t PanelsPerTask(const Panel& w) { return std::max<size_t>(1, kGemvTask / std::max<size_t>(1, w.panel_bytes())); }

void MultiplyPanels(const FewRows& in, const Panel& w, size_t begin, size_t end, const Rows& rows,
                    const MutableRowsView& y, const PerColumn& then) {
  alignas(64) float sums[FewRows::kMaxRows * kPanelRows];
  for (size_t p = begin; p < end; ++p) {
    in.Multiply(w, p, sums);
    const size_t column = p * kPanelRows, n = std::min<size_t>(kPanelRows, w.rows - column);
    for (size_t i = 0; i < rows.count; ++i) WriteRow(y, rows[i], column, n, sums + i * kPanelRows, then);
  }
}

void MultiplyFewRows(const RowsView& x, Compute compute, const Panel& w, const MutableRowsView& y,
                     const PerColumn& then) {
  static thread_local FewRows input;
  input.Quantize(x, compute);
  input.Fit(w);
  const FewRows& in = input;
  ParallelFor(w.panels(), PanelsPerTask(w),
              [&](size_t begin, size_t end) { MultiplyPanels(in, w, begin, end, {x.rows}, y, then); });
}

// ---- Many rows

void MultiplyManyRows(const RowsView& x, Compute compute, const Panel& w, const MutableRowsView& y,
                      const PerColumn& then) {
  static thread_local ManyRows input;
  input.Fill(x, compute, w);
  const ManyRows& in = input;
  ParallelFor(in.Tasks(w), 1, [&](size_t task, size_t) { in.Multiply(w, task, {x.rows}, y, then); });
}

void MultiplyFloats(const RowsView& x, const Panel& w, const MutableRowsView& y, const PerColumn& then) {
  static thread_local FloatRows input;
  input.Fill(x, w);
  const FloatRows& in = input;
  ParallelFor(in.Tasks(w), 1, [&](size_t task, size_t) { in.Multiply(w, task, {x.rows}, y, then); });
}

void MultiplyRows(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute, const PerColumn& then) {
  if (w.floats) MultiplyFloats(x, w, y, then);
  else if (FewRows::Hold(x.rows, compute, w.layout.bits)) MultiplyFewRows(x, compute, w, y, then);
  else MultiplyManyRows(x, compute, w, y, then);
}

constexpr size_t kPreparedAtOnce = 1 << 20;  // numbers

// Weights that lie there in another order, or rotated: so must the activations.
void MultiplyPrepared(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute,
                     const PerColumn& then) {
  const size_t step = std::max<size_t>(ManyRows::kAtOnce, kPreparedAtOnce / std::max<size_t>(1, w.cols)),
               row_bytes = w.cols * sizeof(float);
  static thread_local Scratch memory;
  float* const prepared = memory.Get<float>(std::min(step, x.rows) * w.cols);
  for (size_t first = 0; first < x.rows; first += step) {
    const size_t rows = std::min(step, x.rows - first);
    ParallelFor(rows, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) w.input->Apply(x.type, x.Row(first + i), prepared + i * w.cols);
    });
    MultiplyRows({FormatId::kF32, prepared, rows, w.cols, ptrdiff_t(row_bytes)}, w,
                 {y.type, static_cast<uint8_t*>(y.data) + ptrdiff_t(first) * y.stride, rows, y.cols, y.stride}, compute,
                 then);
  }
}

}  // namespace

void Matmul(const RowsView& x, const Panel& w, const MutableRowsView& y, Compute compute, const PerColumn& then) {
  if (x.cols != w.inputs()) Fail("x has rows of ", x.cols, " numbers, but the weights have ", w.inputs(), " columns");
  if (y.rows != x.rows || y.cols != w.rows)
    Fail("the result is ", x.rows, " x ", w.rows, ", but the output is ", y.rows, " x ", y.cols);
  if (x.rows == 0 || w.rows == 0) return;
  if (w.input) MultiplyPrepared(x, w, y, compute, then);
  else MultiplyRows(x, w, y, compute, then);
}

namespace {

constexpr size_t kGroupedAtOnce = 1 << 17;  // numbers of x

// The rows of one expert.
struct Group {
  const Panel* w;
  Rows rows;
  PerColumn then;
  Scratch memory;
  FewRows few;
  ManyRows many;
  FloatRows floats;
  bool is_few;
  size_t tasks;

  // Row i of the results takes row i / per_row of x.
  void Fill(const RowsView& x, size_t per_row, Compute compute) {
    RowsView mine{x.type, x.data, rows.count, x.cols, x.stride, rows.numbers, per_row};
    if (w->input) {
      float* const own = memory.Get<float>(rows.count * w->cols);
      for (size_t i = 0; i < rows.count; ++i) w->input->Apply(x.type, mine.Row(i), own + i * w->cols);
      mine = {FormatId::kF32, own, rows.count, w->cols, ptrdiff_t(w->cols * sizeof(float))};
    }
    is_few = !w->floats && FewRows::Hold(rows.count, compute, w->layout.bits);
    if (is_few) {
      few.Quantize(mine, compute);
      few.Fit(*w);
      tasks = (w->panels() + PanelsPerTask(*w) - 1) / PanelsPerTask(*w);
    } else if (w->floats) {
      floats.Fill(mine, *w);
      tasks = floats.Tasks(*w);
    } else {
      many.Fill(mine, compute, *w);
      tasks = many.Tasks(*w);
    }
  }
  void Multiply(size_t task, const MutableRowsView& y) const {
    if (w->floats) return floats.Multiply(*w, task, rows, y, then);
    if (!is_few) return many.Multiply(*w, task, rows, y, then);
    const size_t first = task * PanelsPerTask(*w);
    MultiplyPanels(few, *w, first, std::min(w->panels(), first + PanelsPerTask(*w)), rows, y, then);
  }
};

}  // namespace

void MatmulGrouped(const RowsView& x, const std::vector<const Panel*>& experts, const int64_t* index, size_t per_row,
                   const MutableRowsView& y, Compute compute, const PerColumn& then) {
  if (y.rows != x.rows * per_row)
    Fail("there are ", x.rows * per_row, " numbers of experts, but ", y.rows, " rows of results");
  for (const Panel* w : experts)
    if (w->inputs() != x.cols || w->rows != y.cols)
      Fail("an expert has ", w->rows, " x ", w->inputs(), " weights; rows of ", x.cols, " and results of ", y.cols,
           " need ", y.cols, " x ", x.cols);
  std::vector<size_t> first(experts.size() + 1);
  for (size_t i = 0; i < y.rows; ++i) {
    if (index[i] < 0 || size_t(index[i]) >= experts.size())
      Fail("row ", i, " asks for expert ", index[i], ", but there are ", experts.size());
    ++first[size_t(index[i]) + 1];
  }
  for (size_t e = 0; e < experts.size(); ++e) first[e + 1] += first[e];
  std::vector<uint32_t> numbers(y.rows);
  std::vector<size_t> at(first.begin(), first.end() - (first.empty() ? 0 : 1));
  for (size_t i = 0; i < y.rows; ++i) numbers[at[size_t(index[i])]++] = uint32_t(i);
  if (y.rows == 0 || y.cols == 0) return;
  static thread_local std::vector<std::unique_ptr<Group>> kept;  // its memory serves the next call
  // Some experts at a time, whose activations stay in the cache until they are multiplied.
  std::vector<Group*> groups;
  std::vector<std::pair<const Group*, size_t>> tasks;
  for (size_t e = 0, rows = 0; e < experts.size(); ++e) {
    if (first[e] < first[e + 1]) {
      if (kept.size() == groups.size()) kept.push_back(std::make_unique<Group>());
      groups.push_back(kept[groups.size()].get());
      groups.back()->w = experts[e];
      groups.back()->then = then.Of(e, y.cols);
      groups.back()->rows = {first[e + 1] - first[e], &numbers[first[e]]};
      rows += groups.back()->rows.count;
    }
    if (rows * x.cols < kGroupedAtOnce && e + 1 < experts.size()) continue;
    ParallelFor(groups.size(), 1, [&](size_t g, size_t) { groups[g]->Fill(x, per_row, compute); });
    for (const Group* g : groups)
      for (size_t t = 0; t < g->tasks; ++t) tasks.emplace_back(g, t);
    ParallelFor(tasks.size(), 1, [&](size_t t, size_t) { tasks[t].first->Multiply(tasks[t].second, y); });
    groups.clear(), tasks.clear(), rows = 0;
  }
}

void ReadPanels(const Panel& w) {
  std::atomic<int32_t> sink{0};  // or the compiler would not read
  const uint8_t* data = w.data.get();
  size_t bytes = w.bytes;
  if (w.floats && w.floats->data) {
    data = w.floats->data + (kPanelLine - reinterpret_cast<uintptr_t>(w.floats->data) % kPanelLine) % kPanelLine;
    bytes -= std::min(bytes, size_t(data - w.floats->data));
  }
  ParallelFor(bytes / kPanelLine / 4 * 4 * kPanelLine, kGemvTask,
              [&](size_t begin, size_t end) { sink += ReadMemory(data + begin, end - begin); });
}

size_t MultiplyAtPeak(size_t products) {
  const size_t tasks = size_t(NumThreads()) * 8, turns = products / kProductsPerTurn / tasks + 1;
  std::atomic<int32_t> sink{0};
  ParallelFor(tasks, 1, [&](size_t, size_t) { sink += MultiplyBytes(turns); });
  return tasks * turns * kProductsPerTurn;
}

}  // namespace edgequant
