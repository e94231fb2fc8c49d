#include "kernels/cpu/attend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class AttendOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }

  std::vector<float> Some(size_t n, float size = 1) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> x(n);
    for (float& v : x) v = normal(random_);
    return x;
  }
  std::mt19937 random_{7};
};

TEST_P(AttendOnEachTarget, Norm) {
  for (const size_t n : {16, 48, 576}) {
    const std::vector<float> x = Some(n), w = Some(n);
    std::vector<float> y(n);
    double sum = 0;
    for (const float v : x) sum += double(v) * v;
    const double scale = 1 / std::sqrt(sum / double(n) + 1e-5);
    NormRow(x.data(), w.data(), 1e-5f, n, y.data());
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(y[i], x[i] * scale * w[i], 1e-5) << i;
  }
}

TEST_P(AttendOnEachTarget, Rotation) {
  for (const size_t n : {16, 48, 128}) {
    const std::vector<float> x = Some(n), cos = Some(n), sin = Some(n);
    std::vector<float> y = x;
    RotateHead(y.data(), cos.data(), sin.data(), n);
    for (size_t i = 0; i < n; ++i) {
      const float other = i < n / 2 ? -x[i + n / 2] : x[i - n / 2];
      EXPECT_NEAR(y[i], x[i] * cos[i] + other * sin[i], 1e-5) << i;
    }
  }
}

TEST_P(AttendOnEachTarget, Attention) {
  for (const size_t d : {16, 48, 64, 80, 128})
    for (const size_t n : {1, 2, 15, 16, 17, 100})
      for (const float size : {1.0f, 100.0f}) {  // scores near each other, and one that wins
        const std::vector<float> q = Some(d, size), keys = Some(n * d), values = Some(n * d);
        std::vector<float> scores((n + 15) / 16 * 16), y(d);
        AttendHead(q.data(), keys.data(), values.data(), n, d, 0.125f, scores.data(), y.data());
        std::vector<double> p(n), want(d);
        double most = -INFINITY, total = 0;
        for (size_t t = 0; t < n; ++t) {
          for (size_t i = 0; i < d; ++i) p[t] += 0.125 * q[i] * keys[t * d + i];
          most = std::max(most, p[t]);
        }
        for (double& v : p) total += v = std::exp(v - most);
        for (size_t t = 0; t < n; ++t)
          for (size_t i = 0; i < d; ++i) want[i] += p[t] / total * values[t * d + i];
        for (size_t i = 0; i < d; ++i) EXPECT_NEAR(y[i], want[i], 2e-4) << d << " " << n << " " << i;
      }
}

TEST_P(AttendOnEachTarget, GateAndSum) {
  std::vector<float> gate = Some(160, 30), up = Some(160), y = Some(160), sum = up;
  gate[0] = -1e30f;
  gate[1] = 1e30f;
  const std::vector<float> before = gate;
  GateRow(gate.data(), up.data(), gate.size());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double want = before[i] / (1 + std::exp(-double(before[i]))) * up[i];
    EXPECT_NEAR(gate[i], want, 1e-5 * std::abs(want) + 1e-4) << before[i];
  }
  AddRow(sum.data(), y.data(), sum.size());
  for (size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i], up[i] + y[i]);
}

INSTANTIATE_TEST_SUITE_P(Targets, AttendOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace edgequant
