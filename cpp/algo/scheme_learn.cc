// Tables and codebooks that are learned from the weights of a tensor: scales and levels in turns, on a sample.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>

#include "algo/kmeans.h"
#include "algo/scheme_encoder.h"
#include "core/threads.h"

namespace edgequant {
namespace {

constexpr size_t kFewWeights = 1 << 16;  // of which learning a second time takes no time

// Weights that are looked at for a table, as many as make each of its numbers sure; vectors for a codebook.
size_t SampleOf(const Encoder& e) {
  if (e.s.values != Values::kCodebook) return size_t{1} << (e.effort == Effort::kBest || e.s.codes > 16 ? 18 : 17);
  return std::max(size_t{1} << 16, 16 * std::min(size_t(e.s.codes), size_t{1} << 14));
}

// Whole rows, evenly spread over the matrix. CheckMagnitudes of those; of the others where they are encoded.
std::vector<float> SampleRows(const Encoder& e, size_t* rows) {
  const size_t weights = std::max(size_t{1} << 17, SampleOf(e) * size_t(e.s.dim));
  *rows = std::min(e.rows, std::max<size_t>(1, weights / e.cols));
  std::vector<float> x(*rows * e.cols);
  for (size_t r = 0; r < *rows; ++r) {
    const size_t from = r * e.rows / *rows;
    CheckMagnitudes(e, from, 1);
    std::memcpy(&x[r * e.cols], e.x + from * e.cols, e.cols * sizeof(float));
  }
  return x;
}

// The number of largest magnitude becomes 1 (or -1): scales then have the size of the weights.
void Normalize(std::vector<float>& table) {
  float most = 0;
  for (float v : table) most = std::max(most, std::abs(v));
  if (most > 0)
    for (float& v : table) v /= most;
}

float Largest(const float* x, size_t n) {
  float most = 0;
  for (size_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  return most;
}

std::vector<float> LearnLevels(Encoder& e, const std::vector<float>& x, size_t rows) {
  const size_t groups = e.groups(), group = e.group(), cols = e.cols;
  const int k = e.s.codes;
  const auto weight = [&](size_t col) { return e.importance ? e.importance[col] : 1.0f; };
  std::vector<float> scale(rows * groups), shift(rows * groups);
  const auto levels_of = [&](float reach) {  // of the weights over their scales
    LevelHistogram histogram(reach);
    for (size_t r = 0; r < rows; ++r)
      for (size_t g = 0; g < groups; ++g) {
        const float s = scale[r * groups + g], inverse = 1 / s;
        if (std::abs(s) < 1e-37f) continue;
        for (size_t c = g * group; c < std::min(cols, (g + 1) * group); ++c)
          histogram.Add(x[r * cols + c] * inverse, weight(c) * s * s);
      }
    return histogram.BestLevels(k);
  };
  const bool scaled = e.s.scale.present();
  for (size_t r = 0; r < rows; ++r)
    for (size_t g = 0; g < groups; ++g)
      scale[r * groups + g] = scaled ? Largest(&x[r * cols + g * group], std::min(group, cols - g * group)) : 1;
  std::vector<float> table = levels_of(scaled ? 1 : Largest(x.data(), x.size()));
  if (!scaled) return table;
  Normalize(table);
  const Effort effort = e.effort;
  const int turns = effort == Effort::kFast ? 4 : effort == Effort::kDefault ? 8 : 24;
  e.effort = effort == Effort::kBest ? Effort::kDefault : Effort::kFast;
  for (int turn = 0; turn < turns; ++turn) {
    e.UseTable(table);
    ParallelFor(rows, std::max<size_t>(1, 8192 / cols), [&](size_t begin, size_t end) {
      FindRows(e, e.search, &x[begin * cols], end - begin, &scale[begin * groups], &shift[begin * groups]);
    });
    const std::vector<float> next = levels_of(1.5f);
    if (next == table) break;
    table = next;
    Normalize(table);
  }
  e.effort = effort;
  return table;
}

std::vector<float> LearnCodebook(Encoder& e, const std::vector<float>& x, size_t rows) {
  const size_t groups = e.groups(), group = e.group(), cols = e.cols, dim = size_t(e.s.dim);
  const size_t per_row = cols / dim, stride = std::max<size_t>(1, rows * per_row / SampleOf(e));
  const bool scaled = e.s.scale.present();
  std::vector<float> scale(rows * groups, 1.0f);
  if (scaled)
    for (size_t r = 0; r < rows; ++r)
      for (size_t g = 0; g < groups; ++g) {
        double sum = 0;
        const size_t c = g * group, n = std::min(group, cols - c);
        for (size_t i = c; i < c + n; ++i) sum += double(x[r * cols + i]) * double(x[r * cols + i]);
        scale[r * groups + g] = float(std::sqrt(sum / double(n)));
      }
  std::vector<float> u, w;
  const auto fill = [&] {  // vectors over their scales, and the weights of their errors
    u.clear();
    w.clear();
    for (size_t v = 0; v < rows * per_row; v += stride) {
      const size_t r = v / per_row, c = v % per_row * dim;
      const float s = scale[r * groups + c / group];
      if (!(s != 0)) continue;
      for (size_t j = 0; j < dim; ++j) {
        u.push_back(x[r * cols + c + j] / s);
        w.push_back((e.importance ? e.importance[c + j] : 1) * s * s);
      }
    }
  };
  const int rounds = e.effort == Effort::kFast ? 6 : e.effort == Effort::kDefault ? 12 : 30;
  fill();
  std::vector<float> book = LearnRows(u.data(), w.data(), !e.importance, u.size() / dim, e.s.dim, e.s.codes, rounds);
  if (!scaled) return book;
  Normalize(book);
  const Effort effort = e.effort;
  e.effort = Effort::kFast;
  for (int turn = 0; turn < (effort == Effort::kBest ? 6 : 2); ++turn) {
    e.table = book;
    ParallelFor(rows, 1, [&](size_t begin, size_t end) {
      VectorRow row(e);
      std::vector<uint16_t> codes(per_row);
      for (size_t r = begin; r < end; ++r) row.FindScales(&x[r * cols], &scale[r * groups], codes.data());
    });
    fill();
    RefineRows(u.data(), w.data(), !e.importance, u.size() / dim, e.s.dim, rounds / 3, book);
    Normalize(book);
  }
  e.effort = effort;
  return book;
}

// What is left of the sample with this table, weighted and squared.
double ErrorWith(Encoder& e, const std::vector<float>& table, const std::vector<float>& x, size_t rows) {
  const size_t groups = e.groups(), group = e.group(), cols = e.cols, dim = size_t(e.s.dim);
  const bool vectors = e.s.values == Values::kCodebook;
  e.UseTable(table);
  std::vector<double> of_rows(rows);
  ParallelFor(rows, std::max<size_t>(1, 8192 / cols), [&](size_t begin, size_t end) {
    std::vector<float> scale(groups), shift(groups);
    std::vector<uint16_t> rows_of(vectors ? cols / dim : 0);
    std::vector<uint8_t> codes(vectors ? 0 : cols);
    std::optional<VectorRow> search;
    if (vectors) search.emplace(e);
    for (size_t r = begin; r < end; ++r) {
      const float* const row = &x[r * cols];
      if (vectors) {
        search->Run(row, scale.data(), rows_of.data());
      } else {
        FindRows(e, e.search, row, 1, scale.data(), shift.data());
        CodeRow(e, row, scale.data(), shift.data(), codes.data());
      }
      for (size_t c = 0; c < cols; ++c) {
        const float value = vectors ? table[rows_of[c / dim] * dim + c % dim] : table[codes[c]];
        const double gap = double(row[c]) - double(value) * double(scale[c / group]);
        of_rows[r] += double(e.importance ? e.importance[c] : 1) * gap * gap;
      }
    }
  });
  return std::accumulate(of_rows.begin(), of_rows.end(), 0.0);
}

}  // namespace

// Learning ends somewhere near the best table, and with more effort not always nearer.
std::vector<float> LearnTable(Encoder& e) {
  e.UseTable(std::vector<float>(size_t(e.s.codes) * size_t(e.s.dim)));
  size_t rows;
  const std::vector<float> x = SampleRows(e, &rows);
  const auto learn = [&] {
    return e.s.values == Values::kCodebook ? LearnCodebook(e, x, rows) : LearnLevels(e, x, rows);
  };
  std::vector<float> table = learn();
  if (const Effort effort = e.effort;
      effort == Effort::kBest || (effort == Effort::kDefault && x.size() < kFewWeights)) {
    e.effort = Effort(int(effort) - 1);
    std::vector<float> other = learn();
    e.effort = effort;
    if (ErrorWith(e, other, x, rows) < ErrorWith(e, table, x, rows)) table = std::move(other);
  }
  if (Largest(table.data(), table.size()) > 0) return table;
  const size_t dim = size_t(e.s.dim), last = dim > 1 ? 1 : size_t(e.s.codes) - 1;
  for (size_t i = 0; i < table.size(); ++i) {  // all that was seen is 0: evenly spread levels, corners of a cube
    const size_t step = dim > 1 ? i / dim >> i % dim & 1 : i;
    table[i] = 2 * float(step) / float(last) - 1;
  }
  return table;
}

}  // namespace edgequant
