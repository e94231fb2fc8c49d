#include "kernels/cpu/round.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/half.h"
#include "format/encode.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class RoundOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

// The rules of the reference, one weight at a time.
template <const Block& kB>
std::vector<uint8_t> Twin(const std::vector<float>& x) {
  static constexpr Shape s = ShapeOf(kB);
  std::vector<uint8_t> out(x.size() / kB.n * kB.bytes);
  for (size_t b = 0; b < x.size() / kB.n; ++b) {
    const float* v = &x[b * kB.n];
    float extreme = 0, low = v[0], high = v[0], offset = 0, scale;
    for (int i = 0; i < kB.n; ++i) {
      if (std::abs(v[i]) > std::abs(extreme)) extreme = v[i];
      if (v[i] < low) low = v[i];
      if (v[i] > high) high = v[i];
    }
    if (s.affine) scale = (high - low) / s.high, offset = low;
    else if (s.codes == 256) scale = std::abs(extreme) / 127;
    else scale = extreme / s.low;
    const float inverse = scale != 0 ? 1 / scale : 0;
    uint8_t codes[kB.n];
    for (int i = 0; i < kB.n; ++i) {
      if (s.affine) codes[i] = uint8_t(std::min(int(s.high), int((v[i] - low) * inverse + 0.5f)));
      else if (s.codes == 256) codes[i] = uint8_t(int8_t(std::round(v[i] * inverse)));
      else codes[i] = uint8_t(std::min(s.codes - 1, int(v[i] * inverse + (0.5f - s.low))));
    }
    Encode<kB>(codes, &scale, nullptr, &offset, nullptr, &out[b * kB.bytes]);
  }
  return out;
}

std::vector<float> Inputs() {
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  std::vector<float> x;
  for (int block = 0; block < 2000; ++block) {
    const float size = std::exp(normal(random) * 3);
    for (int i = 0; i < 32; ++i)
      x.push_back(block % 4 == 0 ? float(int(random() % 511) - 255) / 2  // ties
                  : block % 4 == 1 ? (random() % 8 ? 0.0f : normal(random))
                                   : normal(random) * size);
  }
  return x;
}

template <const Block& kB>
void ExpectTwin(FormatId id) {
  const std::vector<float> x = Inputs();
  std::vector<uint8_t> got(x.size() / kB.n * kB.bytes);
  RoundBlocks(id, x.data(), x.size() / kB.n, got.data());
  EXPECT_EQ(got, Twin<kB>(x)) << NameOf(id);
}

TEST_P(RoundOnEachTarget, LegacyTypesEqualTheirScalarTwin) {
  ExpectTwin<ggml::Q4_0>(FormatId::kQ4_0);
  ExpectTwin<ggml::Q4_1>(FormatId::kQ4_1);
  ExpectTwin<ggml::Q5_0>(FormatId::kQ5_0);
  ExpectTwin<ggml::Q5_1>(FormatId::kQ5_1);
  ExpectTwin<ggml::Q8_0>(FormatId::kQ8_0);
}

TEST_P(RoundOnEachTarget, LargestMagnitudeSeesEveryPlace) {
  for (size_t n : {1, 7, 16, 31, 32, 33, 100}) {
    for (size_t at = 0; at < n; ++at)
      for (float value : {-3.0f, 4.0f, NAN, -INFINITY}) {
        std::vector<float> x(n, 0.5f);
        x[at] = value;
        EXPECT_EQ(LargestMagnitude(x.data(), n), BitsOfFloat(value) & 0x7fffffff);
      }
  }
  EXPECT_EQ(LargestMagnitude(nullptr, 0), 0u);
}

INSTANTIATE_TEST_SUITE_P(Targets, RoundOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace edgequant
