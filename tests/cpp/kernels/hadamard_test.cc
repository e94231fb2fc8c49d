// The Hadamard transform on every target: the same bits, and those of the definition.
#include "kernels/cpu/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <vector>

#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class HadamardOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

TEST_P(HadamardOnEachTarget, IsThatOfTheDefinition) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (size_t block = 16; block <= 2048; block *= 2) {
    const size_t n = 3 * block;
    std::vector<float> memory(n + 1), factors(n);  // off the lines of the cache
    float* const x = memory.data() + 1;
    for (size_t i = 0; i < n; ++i) x[i] = normal(random), factors[i] = random() % 2 ? 0.5f : -0.5f;
    std::vector<float> given(x, x + n), want(n);
    for (size_t first = 0; first < n; first += block)
      for (size_t i = 0; i < block; ++i) {
        double sum = 0;
        for (size_t k = 0; k < block; ++k) {
          const double v = double(given[first + k] * factors[first + k]);
          sum += std::popcount(i & k) % 2 ? -v : v;
        }
        want[first + i] = float(sum);
      }
    HadamardAfter(factors.data(), block, n, x);
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(x[i], want[i], 1e-4) << "block " << block << ", column " << i;
    std::vector<float> best = given;
    UseKernelTarget("");
    HadamardAfter(factors.data(), block, n, best.data());
    UseKernelTarget(GetParam());
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(x[i], best[i]) << "block " << block << ", column " << i;
    HadamardBefore(factors.data(), block, n, x);  // back, but for the factors' squares and the block
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(x[i] * 4 / float(block), given[i], 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, HadamardOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace edgequant
