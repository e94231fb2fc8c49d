#include "kernels/cpu/search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "format/blocks.h"
#include "format/reference.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class SearchOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

constexpr size_t kRows = 6, kCols = 1280;  // not a whole number of tiles for any format

std::vector<float> Gaussian(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

Tuning SomeTuning() {
  Tuning t;
  for (int k = 0; k < t.starts; ++k) {
    t.start[k][0] = k % 2 ? 1 : -1;
    t.start[k][1] = float(k) / 8 - 1;
  }
  return t;
}

// Candidates for integers up to `high`, and down to -high - 1 if there are negative ones.
void AddCandidates(FormatId id, Tuning& t) {
  const bool both = id == FormatId::kQ3_K || id == FormatId::kQ6_K || id == FormatId::kIQ4_XS;
  const float high = id == FormatId::kQ2_K ? 15 : id == FormatId::kQ6_K ? 127 : both ? 31 : 63;
  t.candidates = 32;
  for (int k = 0; k < 32; ++k) t.candidate[k] = (both && k % 2 ? -1 : 1) * high * (1 - float(k) / 100);
}

std::vector<uint8_t> Search(FormatId id, const std::vector<float>& x, const float* importance, size_t rows = kRows) {
  Tuning t = SomeTuning();
  AddCandidates(id, t);
  const Block& b = BlockOf(id);
  std::vector<uint8_t> out(rows * kCols / size_t(b.n) * size_t(b.bytes) + 1, 0xa5);
  SearchRows(id, {x.data(), rows, kCols, importance, {}, &t, nullptr, out.data()});
  EXPECT_EQ(out.back(), 0xa5);
  out.pop_back();
  return out;
}

double Error(FormatId id, const std::vector<uint8_t>& data, const std::vector<float>& x) {
  const Block& b = BlockOf(id);
  std::vector<float> y(x.size());
  for (size_t k = 0; k < x.size() / size_t(b.n); ++k)
    reference::DecodeBlock(id, &data[k * size_t(b.bytes)], &y[k * size_t(b.n)]);
  double sum = 0;
  for (size_t k = 0; k < x.size(); ++k) sum += double(y[k] - x[k]) * (y[k] - x[k]);
  return sum;
}

TEST_P(SearchOnEachTarget, ErrorIsThatOfTheBestTarget) {
  const std::vector<float> x = Gaussian(kRows * kCols, 1);
  for (FormatId id : AllFormats()) {
    if (!CanSearch(id)) continue;
    const std::vector<uint8_t> got = Search(id, x, nullptr);
    const double error = Error(id, got, x);
    UseKernelTarget("");  // the best
    const std::vector<uint8_t> want = Search(id, x, nullptr);
    UseKernelTarget(GetParam());
    EXPECT_NEAR(error / Error(id, want, x), 1, 2e-3) << NameOf(id);
    size_t same = 0;  // without fused multiply-add some blocks end up in another local minimum
    for (size_t k = 0; k < got.size(); ++k) same += got[k] == want[k];
    EXPECT_GT(double(same) / double(got.size()), 0.9) << NameOf(id);
    if (GetParam().rfind("AVX", 0) == 0) { EXPECT_EQ(same, got.size()) << NameOf(id); }
  }
}

TEST_P(SearchOnEachTarget, ResultOfARowDoesNotDependOnItsNeighbours) {
  const std::vector<float> x = Gaussian(kRows * kCols, 2), importance = Gaussian(kCols, 3);
  std::vector<float> weights;
  for (float v : importance) weights.push_back(std::abs(v) + 1e-3f);
  for (FormatId id : AllFormats()) {
    if (!CanSearch(id)) continue;
    const std::vector<uint8_t> all = Search(id, x, weights.data());
    for (size_t r = 0; r < kRows; ++r) {
      const std::vector<float> row(x.begin() + ptrdiff_t(r * kCols), x.begin() + ptrdiff_t((r + 1) * kCols));
      const std::vector<uint8_t> one = Search(id, row, weights.data(), 1);
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + ptrdiff_t(r * one.size())))
          << NameOf(id) << " row " << r;
    }
  }
}

TEST_P(SearchOnEachTarget, MoreImportantColumnsAreCloser) {
  const std::vector<float> x = Gaussian(kRows * kCols, 4);
  std::vector<float> importance(kCols);
  for (size_t c = 0; c < kCols; ++c) importance[c] = c % 4 == 0 ? 1.0f : 0.01f;
  for (FormatId id : AllFormats()) {
    if (!CanSearch(id) || id == FormatId::kQ1_0) continue;
    const Block& b = BlockOf(id);
    double with[2] = {}, without[2] = {};
    for (int weighted = 0; weighted < 2; ++weighted) {
      const std::vector<uint8_t> data = Search(id, x, weighted ? importance.data() : nullptr);
      std::vector<float> y(x.size());
      for (size_t k = 0; k < x.size() / size_t(b.n); ++k)
    reference::DecodeBlock(id, &data[k * size_t(b.bytes)], &y[k * size_t(b.n)]);
      double* sums = weighted ? with : without;
      for (size_t k = 0; k < x.size(); ++k) sums[k % 4 == 0] += double(y[k] - x[k]) * (y[k] - x[k]);
    }
    EXPECT_LT(with[1], without[1]) << NameOf(id);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SearchOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace edgequant
