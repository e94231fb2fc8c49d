#include "kernels/cpu/bits.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class BitsOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

// Bit by bit. high_first: elements from the top of each byte down.
std::vector<uint8_t> PackSlowly(const std::vector<uint8_t>& codes, int bits, bool high_first, int offset) {
  std::vector<uint8_t> out(BytesOfBits(codes.size(), bits));
  for (size_t i = 0; i < codes.size(); ++i)
    for (int b = 0; b < bits; ++b) {
      size_t at = i * size_t(bits) + size_t(b);
      if (high_first)
        at = at / 8 * 8 + (8 / size_t(bits) - 1 - at % 8 / size_t(bits)) * size_t(bits) + at % size_t(bits);
      out[at / 8] = uint8_t(out[at / 8] | ((codes[i] + offset) >> b & 1) << at % 8);
    }
  return out;
}

TEST_P(BitsOnEachTarget, StreamsOfEveryWidthAndLength) {
  std::mt19937 random(1);
  for (int bits = 1; bits <= 8; ++bits)
    for (bool high_first : {false, true}) {
      if (high_first && bits != 1 && bits != 2 && bits != 4) continue;
      for (size_t n : {1u, 7u, 8u, 9u, 31u, 64u, 100u, 257u, 1000u})
        for (int offset : {0, -1, 1 << (bits - 1)}) {
          std::vector<uint8_t> codes(n);
          for (uint8_t& c : codes) c = uint8_t(random() & ((1u << bits) - 1));
          const std::vector<uint8_t> want = PackSlowly(codes, bits, high_first, offset);
          std::vector<uint8_t> packed(want.size() + 1, 0xa5), back(n + 1, 0x5a);
          PackBits(codes.data(), n, bits, high_first, offset, packed.data());
          EXPECT_EQ(packed.back(), 0xa5);
          packed.pop_back();
          ASSERT_EQ(packed, want) << bits << " bits, " << n << ", offset " << offset;
          UnpackBits(want.data(), n, bits, high_first, offset, back.data());
          EXPECT_EQ(back.back(), 0x5a);
          back.pop_back();
          ASSERT_EQ(back, codes) << bits << " bits, " << n << ", offset " << offset << ", high first " << high_first;
        }
    }
}

TEST(Trits, EveryByteOfFiveDigits) {
  for (int v = 0; v < 243; ++v) {
    const uint8_t digits[5] = {uint8_t(v / 81), uint8_t(v / 27 % 3), uint8_t(v / 9 % 3), uint8_t(v / 3 % 3),
                               uint8_t(v % 3)};
    uint8_t byte, back[5];
    PackTrits(digits, 5, &byte);
    EXPECT_EQ(byte, (v * 256 + 242) / 243);
    UnpackTrits(&byte, 5, back);
    for (int k = 0; k < 5; ++k) EXPECT_EQ(back[k], digits[k]);
  }
  const uint8_t seven[7] = {2, 1, 0, 2, 2, 1, 2};
  uint8_t bytes[2], back[7];
  PackTrits(seven, 7, bytes);
  UnpackTrits(bytes, 7, back);
  for (int k = 0; k < 7; ++k) EXPECT_EQ(back[k], seven[k]);
}

INSTANTIATE_TEST_SUITE_P(Targets, BitsOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace edgequant
