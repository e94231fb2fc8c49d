#include "kernels/cpu/e8p_search.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "format/e8p.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class E8POnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

double Distance(const float* x, float inverse, const float* w, uint32_t code) {
  float point[8];
  E8PVector(code, point);
  double sum = 0;
  for (int k = 0; k < 8; ++k) {
    const double d = double(x[k] * inverse) - double(point[k]);
    sum += (w ? double(w[k]) : 1.0) * d * d;
  }
  return sum;
}

TEST_P(E8POnEachTarget, FindsTheNearestOfAllPoints) {
  constexpr size_t kVectors = 37, kPeriod = 5;  // not a multiple of any vector length
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(kVectors * 8), weights(kPeriod * 8);
  for (float& v : x) v = normal(random) * 3;
  for (size_t k = 0; k < 8; ++k) x[k] = 0, x[8 + k] = 100;  // the smallest and the largest points
  for (float& v : weights) v = std::exp(normal(random));
  for (const float* w : {static_cast<const float*>(nullptr), static_cast<const float*>(weights.data())}) {
    std::vector<uint16_t> codes(kVectors);
    NearestE8P(x.data(), kVectors, 0.4f, w, kPeriod, codes.data());
    for (size_t v = 0; v < kVectors; ++v) {
      const float* const wv = w ? w + v % kPeriod * 8 : nullptr;
      double least = 1e300;
      for (uint32_t code = 0; code < 65536; ++code) least = std::min(least, Distance(&x[v * 8], 0.4f, wv, code));
      EXPECT_NEAR(Distance(&x[v * 8], 0.4f, wv, codes[v]), least, 1e-5 * least) << "vector " << v;
    }
  }
}

TEST(E8P, WordsHoldTheirCodes) {
  std::mt19937 random(2);
  for (int round = 0; round < 100; ++round) {
    uint16_t four[4];
    for (uint16_t& c : four) c = uint16_t(random());
    const uint64_t word = E8PWord(four);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(E8PCodeOfWord(word, i), four[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, E8POnEachTarget, testing::ValuesIn(KernelTargets()));

}  // namespace
}  // namespace edgequant
