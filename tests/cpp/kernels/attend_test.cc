#include "kernels/cpu/attend.h"

#include <gtest/gtest.h>
#include <string.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/half.h"
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

// Numbers as bf16, and what these are.
std::vector<uint16_t> Halves(std::vector<float>& x) {
  std::vector<uint16_t> halves;
  for (float& v : x) {
    const uint16_t half = BF16FromF32(v);
    const uint32_t bits = uint32_t{half} << 16;
    memcpy(&v, &bits, 4);
    halves.push_back(half);
  }
  return halves;
}

TEST_P(AttendOnEachTarget, Norm) {
  for (const size_t n : {16, 48, 576})
    for (const float plus : {0.0f, 1.0f}) {
      std::vector<float> x = Some(n), w = Some(n), y(n), z(n);
      const std::vector<uint16_t> halves = Halves(w);
      double sum = 0;
      for (const float v : x) sum += double(v) * v;
      const double scale = 1 / std::sqrt(sum / double(n) + 1e-5);
      NormRow(x.data(), FormatId::kF32, w.data(), plus, 1e-5f, n, y.data());
      NormRow(x.data(), FormatId::kBF16, halves.data(), plus, 1e-5f, n, z.data());
      for (size_t i = 0; i < n; ++i) EXPECT_NEAR(y[i], x[i] * scale * (w[i] + plus), 1e-5) << i;
      EXPECT_EQ(y, z);
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
        std::vector<float> q = Some(d, size), keys = Some(n * d), values = Some(n * d);
        const std::vector<uint16_t> half_keys = Halves(keys), half_values = Halves(values);
        std::vector<float> scores((n + 15) / 16 * 16), y(d), z(d);
        AttendHead(FormatId::kF32, q.data(), keys.data(), values.data(), n, d, 0.125f, scores.data(), y.data());
        AttendHead(FormatId::kBF16, q.data(), half_keys.data(), half_values.data(), n, d, 0.125f, scores.data(),
                   z.data());
        EXPECT_EQ(y, z);
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

TEST_P(AttendOnEachTarget, Gate) {
  for (const Gate kind : {Gate::kSilu, Gate::kGelu}) {
    std::vector<float> gate = Some(160, 30), up = Some(160);
    gate[0] = -1e30f;
    gate[1] = 1e30f;
    for (size_t i = 2; i < 40; ++i) gate[i] *= 0.02f;
    const std::vector<float> before = gate;
    GateRow(kind, gate.data(), up.data(), gate.size());
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = before[i], t = std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
      const double f = kind == Gate::kSilu ? g / (1 + std::exp(-g)) : 0.5 * g * (1 + std::tanh(t));
      EXPECT_NEAR(gate[i], f * up[i], 1e-5 * std::abs(f * up[i]) + 1e-4) << g;
    }
  }
}

TEST_P(AttendOnEachTarget, Sum) {
  std::vector<float> x = Some(160), y = Some(160), sum = x, other = x;
  const std::vector<uint16_t> halves = Halves(y);
  AddRow(sum.data(), FormatId::kF32, y.data(), sum.size());
  AddRow(other.data(), FormatId::kBF16, halves.data(), sum.size());
  for (size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i], x[i] + y[i]);
  EXPECT_EQ(sum, other);
}

INSTANTIATE_TEST_SUITE_P(Targets, AttendOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace edgequant
