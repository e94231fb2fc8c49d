#include "algo/kmeans.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/threads.h"
#include "kernels/cpu/codebook.h"

namespace edgequant {
namespace {

// Squared error of numbers [i, j) around their mean, from running sums.
struct RunningSums {
  std::vector<double> w, x, xx;
  RunningSums(const float* values, const float* weights, size_t n) : w(n + 1), x(n + 1), xx(n + 1) {
    for (size_t i = 0; i < n; ++i) {
      const double v = values[i], a = weights ? weights[i] : 1;
      w[i + 1] = w[i] + a;
      x[i + 1] = x[i] + a * v;
      xx[i + 1] = xx[i] + a * v * v;
    }
  }
  double Cost(size_t i, size_t j) const {
    const double a = w[j] - w[i], s = x[j] - x[i];
    return a > 0 ? std::max(0.0, xx[j] - xx[i] - s * s / a) : 0;
  }
  double Mean(size_t i, size_t j) const { return w[j] > w[i] ? (x[j] - x[i]) / (w[j] - w[i]) : 0; }
};

// One more level: next[j] = min over i of best[i] + Cost(i, j). The best cut moves only forward with j.
void AddLevel(const RunningSums& sums, const std::vector<double>& best, size_t low, size_t high, size_t from, size_t to,
              std::vector<double>& next, uint32_t* cut) {
  if (low > high) return;
  const size_t j = (low + high) / 2;
  double least = INFINITY;
  size_t at = from;
  for (size_t i = from; i <= std::min(j, to); ++i) {
    const double cost = best[i] + sums.Cost(i, j);
    if (cost < least) least = cost, at = i;
  }
  next[j] = least;
  cut[j] = uint32_t(at);
  if (j > low) AddLevel(sums, best, low, j - 1, from, at, next, cut);
  AddLevel(sums, best, j + 1, high, at, to, next, cut);
}

class Random {  // splitmix64
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  double Uniform() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return double((z ^ z >> 31) >> 11) * 0x1p-53;
  }

 private:
  uint64_t state_;
};

double Distance(const float* x, const float* w, const float* row, int dim) {
  double sum = 0;
  for (int d = 0; d < dim; ++d) sum += (w ? double(w[d]) : 1) * double(x[d] - row[d]) * double(x[d] - row[d]);
  return sum;
}

}  // namespace

std::vector<float> BestLevels(const float* values, const float* weights, size_t n, int k) {
  std::vector<float> levels(size_t(k), n ? values[n - 1] : 0.0f);
  if (n == 0) return levels;
  const size_t used = std::min(size_t(k), n);
  const RunningSums sums(values, weights, n);
  std::vector<double> best(n + 1), next(n + 1);
  for (size_t j = 0; j <= n; ++j) best[j] = sums.Cost(0, j);
  std::vector<uint32_t> cuts(used * (n + 1));
  for (size_t level = 1; level < used; ++level) {
    AddLevel(sums, best, 0, n, 0, n, next, &cuts[level * (n + 1)]);
    best.swap(next);
  }
  size_t end = n;
  for (size_t level = used; level-- > 0;) {
    const size_t begin = level ? cuts[level * (n + 1) + end] : 0;
    levels[level] = begin < end ? float(sums.Mean(begin, end)) : values[std::min(begin, n - 1)];
    end = begin;
  }
  for (size_t level = used; level < size_t(k); ++level) levels[level] = levels[used - 1];
  return levels;
}

LevelHistogram::LevelHistogram(float reach, size_t bins)
    : reach_(reach), per_bin_(reach > 0 ? float(bins) / (2 * reach) : 0), weight_(bins), sum_(bins) {}

std::vector<float> LevelHistogram::BestLevels(int k) const {
  std::vector<float> values, weights;
  for (size_t i = 0; i < weight_.size(); ++i)
    if (weight_[i] > 0) values.push_back(float(sum_[i] / weight_[i])), weights.push_back(float(weight_[i]));
  return edgequant::BestLevels(values.data(), weights.data(), values.size(), k);
}

namespace {

// What each row is nearest to: weighted sums of x, and of the weights. In a fixed split, whatever the number of
// threads.
void SumRows(const float* x, const float* w, const uint16_t* code, size_t n, size_t d, std::vector<double>& sum,
             std::vector<double>& weight) {
  constexpr size_t kShare = 1 << 14;
  const size_t shares = (n + kShare - 1) / kShare, size = sum.size();
  std::vector<double> own(2 * size * shares);
  ParallelFor(shares, 1, [&](size_t share, size_t) {
    double *const s = &own[2 * size * share], *const a = s + size;
    for (size_t i = share * kShare; i < std::min(n, (share + 1) * kShare); ++i)
      for (size_t j = 0, at = code[i] * d; j < d; ++j, ++at) {
        const double by = w ? w[i * d + j] : 1;
        s[at] += by * double(x[i * d + j]);
        a[at] += by;
      }
  });
  for (size_t share = 0; share < shares; ++share)
    for (size_t k = 0; k < size; ++k)
      sum[k] += own[2 * size * share + k], weight[k] += own[2 * size * share + size + k];
}

}  // namespace

void RefineRows(const float* x, const float* w, bool even, size_t n, int dim, int rounds, std::vector<float>& rows) {
  const size_t d = size_t(dim), k = rows.size() / d;
  std::vector<uint16_t> code(n);
  for (int round = 0; round < rounds; ++round) {
    constexpr size_t kShare = 1 << 12;
    ParallelFor(n, kShare, [&](size_t begin, size_t end) {
      NearestRows(x + begin * d, even || !w ? nullptr : w + begin * d, end - begin, dim, rows.data(), k,
                  code.data() + begin);
    });
    std::vector<double> sum(k * d), weight(k * d);
    SumRows(x, w, code.data(), n, d, sum, weight);
    const std::vector<float> before = rows;
    std::vector<size_t> worst;
    for (size_t row = 0; row < k; ++row) {
      const bool unused =
          *std::max_element(weight.begin() + ptrdiff_t(row * d), weight.begin() + ptrdiff_t(row * d + d)) <= 0;
      if (unused && n > k) {
        if (worst.empty()) {
          std::vector<double> error(n);
          for (size_t i = 0; i < n; ++i)
            error[i] = Distance(x + i * d, w ? w + i * d : nullptr, &before[code[i] * d], dim);
          worst.resize(n);
          std::iota(worst.begin(), worst.end(), size_t{0});
          std::partial_sort(worst.begin(), worst.begin() + ptrdiff_t(k), worst.end(),
                            [&](size_t a, size_t b) { return error[a] > error[b]; });
          worst.resize(k);
          std::reverse(worst.begin(), worst.end());
        }
        std::copy_n(x + worst.back() * d, d, &rows[row * d]);
        worst.pop_back();
        continue;
      }
      for (size_t j = 0; j < d; ++j)
        if (weight[row * d + j] > 0) rows[row * d + j] = float(sum[row * d + j] / weight[row * d + j]);
    }
  }
}

namespace {

constexpr int kMostDrawn = 1024;

// k-means++: each next row is a vector drawn in proportion to its distance from the rows so far.
void DrawRows(const float* x, const float* w, size_t n, int dim, std::vector<float>& rows) {
  const size_t d = size_t(dim), k = rows.size() / d;
  const size_t draws = std::min<size_t>(n, 1 << 13), step = n / draws;
  std::vector<double> distance(draws, INFINITY);
  Random random(1);
  size_t pick = size_t(random.Uniform() * double(draws));
  for (size_t row = 0; row < k; ++row) {
    const float* const chosen = x + pick * step * d;
    std::copy_n(chosen, d, &rows[row * d]);
    double total = 0;
    for (size_t i = 0; i < draws; ++i) {
      const size_t at = i * step * d;
      distance[i] = std::min(distance[i], Distance(x + at, w ? w + at : nullptr, chosen, dim));
      total += distance[i];
    }
    double left = random.Uniform() * total;
    pick = draws - 1;
    for (size_t i = 0; i < draws; ++i)
      if ((left -= distance[i]) < 0) {
        pick = i;
        break;
      }
  }
}

}  // namespace

std::vector<float> LearnRows(const float* x, const float* w, bool even, size_t n, int dim, int k, int rounds) {
  const size_t d = size_t(dim);
  std::vector<float> rows(size_t(k) * d);
  if (n == 0) return rows;
  if (k > kMostDrawn) {  // vectors that are evenly spread: drawing takes as long as k * n distances
    for (size_t row = 0; row < size_t(k); ++row) std::copy_n(x + row * n / size_t(k) * d, d, &rows[row * d]);
  } else {
    DrawRows(x, w, n, dim, rows);
  }
  const size_t part = n / 4;  // half of the rounds see a quarter of the vectors
  if (part > 64 * size_t(k)) {
    std::vector<float> some(part * d), weights(w ? part * d : 0);
    for (size_t i = 0; i < part; ++i) {
      std::copy_n(x + 4 * i * d, d, &some[i * d]);
      if (w) std::copy_n(w + 4 * i * d, d, &weights[i * d]);
    }
    RefineRows(some.data(), w ? weights.data() : nullptr, even, part, dim, rounds / 2, rows);
    rounds -= rounds / 2;
  }
  RefineRows(x, w, even, n, dim, rounds, rows);
  return rows;
}

}  // namespace edgequant
