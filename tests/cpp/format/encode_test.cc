#include "format/encode.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "format/catalog.h"

namespace edgequant {
namespace {

// Random codes, numbers and integers go in; what comes out must be what the description says they mean.
template <const Block& kB>
void RoundTrip(const char* name) {
  if constexpr (kB.map.kind != MapKind::kGrid && kB.n > 1) {
    SCOPED_TRACE(name);
    static constexpr Shape s = ShapeOf(kB);
    std::mt19937 random(5);
    for (int round = 0; round < 50; ++round) {
      std::vector<uint8_t> codes(kB.n), block(kB.bytes + 1, 0xa5);
      for (uint8_t& c : codes) c = uint8_t(random() % unsigned(s.codes));
      std::vector<float> scale(s.groups), offset(s.groups);
      std::vector<int> scale_integer(s.groups), offset_integer(s.groups);
      for (int g = 0; g < s.groups; ++g) {
        const int byte = 100 + int(random() % 27);  // an ordinary number of the 8-bit types
        scale[g] = SizeOf(kB.scale.type) == 1 ? FloatOfByte(kB.scale.type, byte)
                                              : F16ToF32(uint16_t(0x2000 + random() % 0x2000));
        offset[g] = F16ToF32(uint16_t(0x2000 + random() % 0x2000));
        scale_integer[g] = s.two_level ? s.scale_low + int(random() % unsigned(s.scale_high - s.scale_low + 1)) : 1;
        offset_integer[g] = s.two_level && s.affine ? int(random() % unsigned(s.min_high + 1)) : 1;
      }
      Encode<kB>(codes.data(), scale.data(), scale_integer.data(), offset.data(), offset_integer.data(), block.data());
      EXPECT_EQ(block.back(), 0xa5);
      for (int i = 0; i < kB.n; ++i) {
        const int g = i / s.group, number = kB.scale.group ? g : 0;
        const float d = kB.scale.factor * scale[number], m = kB.offset.factor * offset[number];
        float want = ValueOf(kB, codes[i]) * (s.two_level ? d * float(scale_integer[g]) : d);
        if (s.affine) want += s.two_level ? m * float(offset_integer[g]) : m;
        ASSERT_EQ(Decode<kB>(block.data(), i), want) << "weight " << i;
      }
    }
  }
}

TEST(Encode, IsTheInverseOfDecodeForEveryDescription) {
#define EDGEQUANT_X(id, name, block, gguf) RoundTrip<block>(name);
  EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
}

TEST(NearestByte, IsNearestForAllCodes) {
  for (const Number type : {Number::kE8M0, Number::kE8M0Half, Number::kUE4M3}) {
    const int last = type == Number::kUE4M3 ? kLastUE4M3 : kLastE8M0;
    for (int code = 0; code < last; ++code) {
      const float a = FloatOfByte(type, code), b = FloatOfByte(type, code + 1);
      EXPECT_EQ(NearestByte(type, a), code);
      EXPECT_EQ(NearestByte(type, a + (b - a) * 0.25f), code);
      EXPECT_EQ(NearestByte(type, a + (b - a) * 0.75f), code + 1);
    }
    EXPECT_EQ(NearestByte(type, 3e38f), last);
    EXPECT_EQ(NearestByte(type, 0), 0);
  }
}

TEST(Shape, FollowsFromTheDescription) {
  constexpr Shape q4 = ShapeOf(ggml::Q4_K), q6 = ShapeOf(ggml::Q6_K), iq4 = ShapeOf(ggml::IQ4_XS),
                  q8 = ShapeOf(ggml::Q8_0);
  EXPECT_EQ(q4.group, 32);
  EXPECT_EQ(q4.groups, 8);
  EXPECT_TRUE(q4.affine && q4.two_level);
  EXPECT_EQ(q4.high, 15);
  EXPECT_EQ(q4.scale_high, 63);
  EXPECT_EQ(q6.low, -32);
  EXPECT_EQ(q6.scale_low, -128);
  EXPECT_EQ(q6.scale_high, 127);
  EXPECT_EQ(iq4.low, -127);
  EXPECT_EQ(iq4.scale_low, -32);
  EXPECT_EQ(q8.low, -128);
  EXPECT_EQ(q8.high, 127);
  EXPECT_EQ(ShapeOf(ggml::NVFP4).group, 16);
  EXPECT_EQ(ShapeOf(ggml::TQ2_0).codes, 3);
  EXPECT_EQ(ShapeOf(ggml::MXFP4).high, 12);
}

}  // namespace
}  // namespace edgequant
