#include "kernels/cpu/round.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// The least error of one group under scale d, each weight at the nearest value.
template <const Block& kB>
double ErrorUnder(const float* x, double d) {
  double sum = 0;
  for (int i = 0; i < ShapeOf(kB).group; ++i) {
    double least = double(x[i]) * x[i];
    for (float v : kB.map.values) least = std::min(least, (x[i] - v * d) * (x[i] - v * d));
    sum += least;
  }
  return sum;
}

// The scales that put the greatest magnitude at the last value or near it, one at a time.
template <const Block& kB>
void ExpectTheBetterOfTwoScales(FormatId id) {
  static constexpr Shape s = ShapeOf(kB);
  const std::vector<float> x = Inputs();
  std::vector<uint8_t> got(x.size() / kB.n * kB.bytes);
  RoundBlocks(id, x.data(), x.size() / kB.n, got.data());
  int others = 0;
  for (size_t at = 0; at < x.size(); at += s.group) {
    float most = 0;
    for (int i = 0; i < s.group; ++i) most = std::max(most, std::abs(x[at + i]));
    double plain, other;
    if (kB.scale.type == Number::kUE4M3) {
      if (most > 2000) continue;  // more than its scales reach
      plain = FloatOfByte(kB.scale.type, NearestByte(kB.scale.type, most / s.high));
      other = FloatOfByte(kB.scale.type, NearestByte(kB.scale.type, most / 4));
    } else {
      plain = most == 0 ? 0 : std::exp2(std::floor(std::log2(most)) - 3);
      other = 2 * plain;
    }
    double error = 0;
    for (int i = 0; i < s.group; ++i) {
      const double r = Decode<kB>(&got[(at + i) / kB.n * kB.bytes], int((at + i) % kB.n)) - double(x[at + i]);
      error += r * r;
    }
    const double first = ErrorUnder<kB>(&x[at], plain), second = ErrorUnder<kB>(&x[at], other);
    EXPECT_LE(error, std::min(first, second) * (1 + 1e-5) + most * most * 1e-11)
        << NameOf(id) << " group " << at / s.group;
    others += second < first;
  }
  EXPECT_GT(others, 100);
}

TEST_P(RoundOnEachTarget, FloatsTakeTheBetterOfTwoScales) {
  ExpectTheBetterOfTwoScales<ggml::MXFP4>(FormatId::kMXFP4);
  ExpectTheBetterOfTwoScales<ggml::NVFP4>(FormatId::kNVFP4);
}

// Turns of 16 groups and the rest behind them: each block as it is alone, and nothing written behind the last.
TEST_P(RoundOnEachTarget, BlocksDoNotDependOnTheirNeighbours) {
  const std::vector<float> all = Inputs();
  for (FormatId id : {FormatId::kQ4_0, FormatId::kQ5_1, FormatId::kQ8_0, FormatId::kMXFP4, FormatId::kNVFP4}) {
    const size_t n = size_t(BlockOf(id).n), bytes = size_t(BlockOf(id).bytes);
    for (size_t blocks : {1, 15, 16, 17, 47}) {
      std::vector<uint8_t> got(blocks * bytes + 64, 0xa5), alone(bytes);
      RoundBlocks(id, all.data(), blocks, got.data());
      for (size_t b = 0; b < blocks; ++b) {
        RoundBlocks(id, &all[b * n], 1, alone.data());
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), got.begin() + b * bytes)) << NameOf(id) << " block " << b;
      }
      for (size_t i = blocks * bytes; i < got.size(); ++i) ASSERT_EQ(got[i], 0xa5) << NameOf(id) << " " << blocks;
    }
  }
}

TEST_P(RoundOnEachTarget, NumbersEqualTheirScalarTwin) {
  std::mt19937 random(4);
  for (size_t n : {1, 15, 31, 32, 33, 100, 3000}) {
    std::vector<float> x(n);
    for (float& v : x) {
      const uint32_t bits = (random() & 0x87ffffff) + 0x3c000000;
      v = FloatOfBits(random() % 4 ? bits : (bits & 0xffff0000) + 0x8000);  // ties
    }
    std::vector<uint16_t> f16(n + 1, 0xa5a5), bf16(n + 1, 0xa5a5);
    RoundBlocks(FormatId::kF16, x.data(), n, reinterpret_cast<uint8_t*>(f16.data()));
    RoundBlocks(FormatId::kBF16, x.data(), n, reinterpret_cast<uint8_t*>(bf16.data()));
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(f16[i], F16FromF32(x[i])) << n << " " << x[i];
      EXPECT_EQ(bf16[i], BF16FromF32(x[i])) << n << " " << x[i];
    }
    EXPECT_EQ(f16[n], 0xa5a5);
    EXPECT_EQ(bf16[n], 0xa5a5);
  }
}

TEST_P(RoundOnEachTarget, ReturnsTheLargestMagnitude) {
  for (FormatId id : {FormatId::kF16, FormatId::kBF16, FormatId::kQ4_0, FormatId::kQ4_1, FormatId::kQ8_0,
                      FormatId::kMXFP4, FormatId::kNVFP4}) {
    const size_t n = 64 * 37;
    std::vector<uint8_t> out(n * 4);
    for (size_t at : {size_t{0}, size_t{31}, size_t{32}, size_t{700}, n - 1})
      for (float value : {-3.0f, 4.0f}) {
        std::vector<float> x(n, 0.5f);
        x[at] = value;
        EXPECT_EQ(RoundBlocks(id, x.data(), n / BlockOf(id).n, out.data()), BitsOfFloat(std::abs(value))) << NameOf(id);
        for (float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
          x[at] = bad;
          EXPECT_GE(RoundBlocks(id, x.data(), n / BlockOf(id).n, out.data()), 0x7f800000u) << NameOf(id) << " " << bad;
        }
      }
    const std::vector<float> zeros(n, -0.0f);
    EXPECT_EQ(RoundBlocks(id, zeros.data(), n / BlockOf(id).n, out.data()), 0u) << NameOf(id);
  }
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
