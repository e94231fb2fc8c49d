#include "algo/kmeans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/cpu/group_levels.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

double ErrorOf(const std::vector<float>& x, const std::vector<float>& w, const std::vector<float>& levels) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double least = INFINITY;
    for (float v : levels) least = std::min(least, double(x[i] - v) * double(x[i] - v));
    sum += double(w[i]) * least;
  }
  return sum;
}

// The least error over all ways to cut the sorted numbers into k runs.
double BruteForce(const std::vector<float>& x, const std::vector<float>& w, size_t begin, int k) {
  if (begin == x.size()) return 0;
  if (k == 0) return INFINITY;
  double best = INFINITY;
  for (size_t end = begin + 1; end <= x.size(); ++end) {
    double a = 0, s = 0, cost = 0;
    for (size_t i = begin; i < end; ++i) a += w[i], s += double(w[i]) * double(x[i]);
    for (size_t i = begin; i < end && a > 0; ++i) cost += double(w[i]) * (x[i] - s / a) * (x[i] - s / a);
    best = std::min(best, cost + BruteForce(x, w, end, k - 1));
  }
  return best;
}

TEST(KMeans, LevelsOfNumbersAreTheBestThereAre) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int k = 1; k <= 4; ++k)
    for (size_t n : {1u, 2u, 5u, 12u}) {
      std::vector<float> x(n), w(n);
      for (float& v : x) v = normal(random);
      for (float& v : w) v = std::abs(normal(random));
      std::sort(x.begin(), x.end());
      const std::vector<float> levels = BestLevels(x.data(), w.data(), n, k);
      ASSERT_EQ(levels.size(), size_t(k));
      EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
      EXPECT_NEAR(ErrorOf(x, w, levels), BruteForce(x, w, 0, k), 1e-6) << n << " numbers, " << k << " levels";
    }
}

TEST(KMeans, AHistogramOfNumbersGivesNearlyTheSame) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(4000);
  for (float& v : x) v = normal(random);
  std::sort(x.begin(), x.end());
  const std::vector<float> ones(x.size(), 1.0f);
  LevelHistogram histogram(5);
  for (float v : x) histogram.Add(v, 1);
  const double best = ErrorOf(x, ones, BestLevels(x.data(), nullptr, x.size(), 16));
  EXPECT_LT(ErrorOf(x, ones, histogram.BestLevels(16)), 1.001 * best);
}

// Many groups at once are as good as one after the other: on all targets, with and without weights, for constant groups
// too.
TEST(KMeans, LevelsOfGroups) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const std::string& target : KernelTargets()) {
    ASSERT_TRUE(UseKernelTarget(target));
    for (size_t n : {1, 3, 16, 50, 64, 96})
      for (int k : {2, 3, 4, 16}) {
        const size_t groups = 19;
        std::vector<float> x(groups * n), w(groups * n), found(groups * size_t(k));
        for (float& v : x) v = 3e4f * normal(random) + 1e4f;
        for (float& v : w) v = std::pow(normal(random), 4.0f);
        std::fill_n(x.begin(), n, -7.0f);
        for (const float* weights : {static_cast<const float*>(nullptr), static_cast<const float*>(w.data())}) {
          BestGroupLevels(x.data(), weights, groups, n, k, false, found.data());
          for (size_t g = 0; g < groups; ++g) {
            const float* const levels = &found[g * size_t(k)];
            for (int level = 0; level < k; ++level) {
              ASSERT_TRUE(std::isfinite(levels[level]));
              ASSERT_GE(levels[level], levels[std::max(level - 1, 0)]);
            }
            std::vector<size_t> order(n);
            std::iota(order.begin(), order.end(), g * n);
            std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] < x[b]; });
            std::vector<float> sorted, weight;
            for (size_t i : order) sorted.push_back(x[i]), weight.push_back(weights ? weights[i] : 1);
            const double least = ErrorOf(sorted, weight, BestLevels(sorted.data(), weight.data(), n, k));
            const double all = ErrorOf(sorted, weight, {0});
            EXPECT_LE(ErrorOf(sorted, weight, {levels, levels + k}), 1.0001 * least + 1e-6 * all)
                << target << ", " << n << " numbers, " << k;
          }
        }
      }
  }
  UseKernelTarget("");
}

// The quick way is in order, too, and on average little worse.
TEST(KMeans, QuickLevelsOfGroups) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  const size_t groups = 40;
  for (const std::string& target : KernelTargets()) {
    ASSERT_TRUE(UseKernelTarget(target));
    for (size_t n : {3, 32, 64, 256})
      for (int k : {2, 4, 8, 16})
        for (const bool weighted : {false, true}) {
          std::vector<float> x(groups * n), w(groups * n, 1.0f), best(groups * size_t(k)), found = best;
          for (float& v : x) v = 3e4f * normal(random) + 1e4f;
          if (weighted)
            for (float& v : w) v = std::pow(normal(random), 2.0f);
          std::fill_n(x.begin(), n, -7.0f);
          BestGroupLevels(x.data(), weighted ? w.data() : nullptr, groups, n, k, false, best.data());
          BestGroupLevels(x.data(), weighted ? w.data() : nullptr, groups, n, k, true, found.data());
          double least = 0, all = 0;
          for (size_t g = 0; g < groups; ++g) {
            const std::vector<float> own(&x[g * n], &x[g * n] + n), weights(&w[g * n], &w[g * n] + n);
            const float *const a = &best[g * size_t(k)], *const b = &found[g * size_t(k)];
            EXPECT_TRUE(std::is_sorted(b, b + k)) << target << ", " << n << " numbers, " << k;
            least += ErrorOf(own, weights, {a, a + k});
            all += ErrorOf(own, weights, {b, b + k});
          }
          EXPECT_LE(all, 1.08 * least) << target << ", " << n << " numbers, " << k << " levels, weights " << weighted;
        }
  }
  UseKernelTarget("");
}

TEST(KMeans, RowsFindTheClustersTheyWereDrawnFrom) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const size_t dim = 4, k = 8, n = 2000;
  std::vector<float> centres(k * dim), x(n * dim);
  for (float& v : centres) v = 10 * normal(random);
  for (size_t i = 0; i < n; ++i)
    for (size_t d = 0; d < dim; ++d) x[i * dim + d] = centres[i % k * dim + d] + 0.1f * normal(random);
  const std::vector<float> rows = LearnRows(x.data(), nullptr, true, n, int(dim), int(k), 10);
  for (size_t c = 0; c < k; ++c) {
    double least = INFINITY;
    for (size_t r = 0; r < k; ++r) {
      double distance = 0;
      for (size_t d = 0; d < dim; ++d) distance += std::pow(rows[r * dim + d] - centres[c * dim + d], 2);
      least = std::min(least, distance);
    }
    EXPECT_LT(least, 0.01) << "centre " << c;
  }
  EXPECT_EQ(rows, LearnRows(x.data(), nullptr, true, n, int(dim), int(k), 10));
}

TEST(KMeans, FewerNumbersThanLevels) {
  const float x[2] = {-1, 3};
  EXPECT_EQ(BestLevels(x, nullptr, 2, 4), (std::vector<float>{-1, 3, 3, 3}));
  EXPECT_EQ(BestLevels(x, nullptr, 0, 2), (std::vector<float>{0, 0}));
  for (float v : LearnRows(x, nullptr, true, 1, 2, 4, 3)) EXPECT_TRUE(std::isfinite(v));
}

}  // namespace
}  // namespace edgequant
