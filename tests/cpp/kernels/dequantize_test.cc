#include "kernels/cpu/dequantize.h"

#include <gtest/gtest.h>

#include "core/half.h"
#include "format/blocks.h"
#include "format/reference.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class EachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(UseKernelTarget(GetParam()));
    ASSERT_EQ(KernelTarget(), GetParam());
  }
  void TearDown() override { UseKernelTarget(""); }
};

TEST_P(EachTarget, DecodesEveryFormatLikeTheReference) {
  for (FormatId id : AllFormats()) {
    SCOPED_TRACE(NameOf(id));
    const size_t n = size_t(BlockOf(id).n), bytes = size_t(BlockOf(id).bytes), most = n == 1 ? 100 : 37;
    const std::vector<uint8_t> src = RandomBlocks(id, 1000, 7);
    std::vector<float> want(1000 * n), got(1000 * n);
    for (size_t b = 0; b < 1000; ++b) reference::DecodeBlock(id, &src[b * bytes], &want[b * n]);
    DequantizeBlocks(id, src.data(), 1000, got.data());
    ASSERT_EQ(FirstDifference(got.data(), want.data(), got.size()), -1);
    // Any number of blocks, from and to any address; nothing is written beyond the end.
    for (size_t blocks = 0; blocks <= most; ++blocks) {
      const size_t shift = blocks % 5;
      std::vector<uint8_t> moved(src.begin(), src.begin() + ptrdiff_t(blocks * bytes));
      moved.insert(moved.begin(), shift, 0xff);
      moved.shrink_to_fit();  // the address sanitizer sees reads beyond the last block
      std::vector<float> out(shift + blocks * n + 1, -77.0f);
      DequantizeBlocks(id, moved.data() + shift, blocks, out.data() + shift);
      ASSERT_EQ(FirstDifference(out.data() + shift, want.data(), blocks * n), -1) << blocks << " blocks";
      ASSERT_EQ(out.back(), -77.0f);
      if (shift) { ASSERT_EQ(out[shift - 1], -77.0f); }
    }
  }
}

std::vector<float> FloatsOfAllKinds() {
  std::vector<float> x;
  std::mt19937 random(3);
  const auto add = [&](uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    x.push_back(f);
  };
  for (uint32_t k = 0; k < 65536; ++k) {  // around every f16 and every bf16
    const float h = reference::F16(uint16_t(k));
    uint32_t bits;
    memcpy(&bits, &h, sizeof bits);
    for (uint32_t nudge : {0u, 1u, 0xffffffffu, 0xfffu, 0x1000u, 0x1001u}) add(bits + nudge);
    for (uint32_t nudge : {0u, 0x7fffu, 0x8000u, 0x8001u}) add((k << 16) + nudge);
  }
  for (int k = 0; k < 1000003; ++k) add(uint32_t(random()));
  return x;
}

TEST_P(EachTarget, RoundsToSixteenBitsLikeTheScalarCode) {
  const std::vector<float> x = FloatsOfAllKinds();
  std::vector<uint16_t> f16(x.size()), bf16(x.size());
  DemoteToF16(x.data(), x.size(), f16.data());
  DemoteToBF16(x.data(), x.size(), bf16.data());
  for (size_t k = 0; k < x.size(); ++k) {
    if (std::isnan(x[k])) {
      ASSERT_TRUE(std::isnan(reference::F16(f16[k]))) << x[k];
      ASSERT_GT(bf16[k] & 0x7fff, 0x7f80) << x[k];
    } else {
      ASSERT_EQ(f16[k], F16FromF32(x[k])) << x[k];
      ASSERT_EQ(bf16[k], BF16FromF32(x[k])) << x[k];
    }
  }
}

TEST_P(EachTarget, ReadsAllSixteenBitNumbers) {
  std::vector<uint16_t> bits(65536);
  for (uint32_t k = 0; k < 65536; ++k) bits[k] = uint16_t(k);
  std::vector<float> f16(65536), bf16(65536);
  DequantizeBlocks(FormatId::kF16, reinterpret_cast<const uint8_t*>(bits.data()), bits.size(), f16.data());
  DequantizeBlocks(FormatId::kBF16, reinterpret_cast<const uint8_t*>(bits.data()), bits.size(), bf16.data());
  for (uint32_t k = 0; k < 65536; ++k) {
    ASSERT_TRUE(SameBits(f16[k], reference::F16(uint16_t(k)))) << k;
    float want;
    const uint32_t wide = k << 16;
    memcpy(&want, &wide, sizeof want);
    ASSERT_TRUE(SameBits(bf16[k], want)) << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, EachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& info) { return info.param; });

TEST(KernelTargets, AreChosenByName) {
  const std::vector<std::string> names = KernelTargets();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(KernelTarget(), names.front());
  EXPECT_FALSE(UseKernelTarget("Z80"));
}

}  // namespace
}  // namespace edgequant
