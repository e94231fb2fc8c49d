#include "op/dequantize.h"

#include <gtest/gtest.h>

#include "core/half.h"
#include "core/threads.h"
#include "format/blocks.h"
#include "format/reference.h"
#include "op/target.h"

namespace edgequant {
namespace {

std::vector<float> ReferenceOf(const TensorView& q) {
  std::vector<float> out(q.rows * q.cols);
  const size_t n = size_t(BlockOf(q.format).n);
  for (size_t b = 0; b * n < out.size(); ++b)
    reference::DecodeBlock(q.format, q.data + b * size_t(BlockOf(q.format).bytes), &out[b * n]);
  return out;
}

class DequantizeTest : public testing::TestWithParam<FormatId> {
 protected:
  void TearDown() override { SetNumThreads(0); }
};

TEST_P(DequantizeTest, EqualsTheReferenceInAllTypesAtAnyThreadCount) {
  const size_t rows = 331, cols = 512;  // more than one task, the last one short
  const std::vector<uint8_t> data = RandomBlocks(GetParam(), rows * cols / size_t(BlockOf(GetParam()).n), 11);
  const TensorView q{GetParam(), data.data(), rows, cols};
  const std::vector<float> want = ReferenceOf(q);
  for (int threads : {1, 3}) {
    SetNumThreads(threads);
    std::vector<float> f32(rows * cols + 1, 5.0f);
    std::vector<uint16_t> f16(rows * cols + 1, 0x1234), bf16(rows * cols + 1, 0x1234);
    Dequantize(q, FormatId::kF32, f32.data());
    Dequantize(q, FormatId::kF16, f16.data());
    Dequantize(q, FormatId::kBF16, bf16.data());
    ASSERT_EQ(FirstDifference(f32.data(), want.data(), want.size()), -1);
    for (size_t k = 0; k < want.size(); ++k) {
      if (std::isnan(want[k])) {
        ASSERT_TRUE(std::isnan(reference::F16(f16[k])));
        ASSERT_GT(bf16[k] & 0x7fff, 0x7f80);
      } else {
        ASSERT_EQ(f16[k], F16FromF32(want[k])) << want[k];
        ASSERT_EQ(bf16[k], BF16FromF32(want[k])) << want[k];
      }
    }
    EXPECT_EQ(f32.back(), 5.0f);
    EXPECT_EQ(f16.back(), 0x1234);
    EXPECT_EQ(bf16.back(), 0x1234);
  }
  std::vector<float> row(cols);
  DequantizeRow(GetParam(), data.data() + RowBytes(GetParam(), cols), cols, row.data());
  EXPECT_EQ(FirstDifference(row.data(), &want[cols], cols), -1);
}

INSTANTIATE_TEST_SUITE_P(Formats, DequantizeTest, testing::ValuesIn(AllFormats()),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

TEST(Dequantize, RefusesWhatItCannotDo) {
  std::vector<uint8_t> data(144);
  std::vector<float> out(256);
  EXPECT_THROW(Dequantize({FormatId::kQ4_K, data.data(), 1, 100}, FormatId::kF32, out.data()), Error);
  EXPECT_THROW(Dequantize({FormatId::kQ4_K, data.data(), 1, 256}, FormatId::kQ8_0, out.data()), Error);
  Dequantize({FormatId::kQ4_K, nullptr, 0, 256}, FormatId::kF32, nullptr);  // nothing to do is fine
  Dequantize({FormatId::kQ4_K, nullptr, 3, 0}, FormatId::kF16, nullptr);
}

TEST(SimdTargets, UnknownNamesAreListed) {
  EXPECT_EQ(SimdTarget(), SimdTargets().front());
  try {
    UseSimdTarget("nothing");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(SimdTargets().back()), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace edgequant
