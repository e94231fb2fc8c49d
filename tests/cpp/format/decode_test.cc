#include "format/decode.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "format/blocks.h"
#include "format/reference.h"

namespace edgequant {
namespace {

template <const Block& kB>
void DecodeAll(const uint8_t* src, size_t blocks, float* out) {
  for (size_t b = 0; b < blocks; ++b)
    for (int i = 0; i < kB.n; ++i) out[b * size_t(kB.n) + size_t(i)] = Decode<kB>(src + b * size_t(kB.bytes), i);
}
void DecodeScalar(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  switch (id) {
#define EDGEQUANT_X(id, name, block, gguf) \
  case FormatId::k##id: return DecodeAll<block>(src, blocks, out);
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  }
}

class DecodeTest : public testing::TestWithParam<FormatId> {};

TEST_P(DecodeTest, EqualsTheReferenceOnAnyBytes) {
  const FormatId id = GetParam();
  const size_t n = size_t(BlockOf(id).n), blocks = 40000 / n;
  const std::vector<uint8_t> src = RandomBlocks(id, blocks, 1);
  std::vector<float> got(blocks * n), want(blocks * n);
  DecodeScalar(id, src.data(), blocks, got.data());
  for (size_t b = 0; b < blocks; ++b) reference::DecodeBlock(id, &src[b * size_t(BlockOf(id).bytes)], &want[b * n]);
  const ptrdiff_t at = FirstDifference(got.data(), want.data(), got.size());
  ASSERT_EQ(at, -1) << "weight " << at << ": " << got[size_t(at)] << " instead of " << want[size_t(at)];
}

std::vector<char> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Blocks and the floats that ggml makes of them: written once by tools/make_golden.py.
TEST_P(DecodeTest, EqualsGgmlOnTheGoldenBlocks) {
  const FormatId id = GetParam();
  const std::string base = std::string(EDGEQUANT_GOLDEN) + "/" + NameOf(id);
  const std::vector<char> src = ReadFile(base + ".blocks"), floats = ReadFile(base + ".f32");
  const size_t n = size_t(BlockOf(id).n), bytes = size_t(BlockOf(id).bytes), blocks = src.size() / bytes;
  ASSERT_GT(blocks, 0u) << "no golden file for this format: run tools/make_golden.py";
  ASSERT_EQ(src.size(), blocks * bytes);
  ASSERT_EQ(floats.size(), blocks * n * sizeof(float));
  std::vector<float> want(blocks * n), got(blocks * n);
  memcpy(want.data(), floats.data(), floats.size());
  DecodeScalar(id, reinterpret_cast<const uint8_t*>(src.data()), blocks, got.data());
  const ptrdiff_t at = FirstDifference(got.data(), want.data(), got.size());
  ASSERT_EQ(at, -1) << "weight " << at << ": " << got[size_t(at)] << " instead of " << want[size_t(at)];
}

INSTANTIATE_TEST_SUITE_P(Formats, DecodeTest, testing::ValuesIn(AllFormats()),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

TEST(ReadNumberTest, F16EqualsTheReferenceForAllBits) {
  for (uint32_t k = 0; k < 65536; ++k) ASSERT_TRUE(SameBits(F16ToF32(uint16_t(k)), reference::F16(uint16_t(k)))) << k;
}

TEST(ReadNumberTest, SmallFloats) {
  const auto read = [](Number type, uint8_t byte) { return ReadNumber(type, &byte); };
  EXPECT_EQ(read(Number::kE8M0, 127), 1.0f);
  EXPECT_EQ(read(Number::kE8M0, 0), std::ldexp(1.0f, -127));
  EXPECT_EQ(read(Number::kE8M0Half, 128), 1.0f);
  EXPECT_EQ(read(Number::kE8M0Half, 0), std::ldexp(1.0f, -128));
  EXPECT_EQ(read(Number::kE8M0Half, 1), std::ldexp(1.0f, -127));
  EXPECT_EQ(read(Number::kE8M0Half, 2), std::ldexp(1.0f, -126));
  EXPECT_EQ(read(Number::kE8M0Half, 255), std::ldexp(1.0f, 127));
  EXPECT_EQ(read(Number::kUE4M3, 0), 0.0f);
  EXPECT_EQ(read(Number::kUE4M3, 1), std::ldexp(1.0f, -9));
  EXPECT_EQ(read(Number::kUE4M3, 0x38), 1.0f);
  EXPECT_EQ(read(Number::kUE4M3, 0x7e), 448.0f);
  EXPECT_EQ(read(Number::kUE4M3, 0x7f), 0.0f);
}

}  // namespace
}  // namespace edgequant
