#include "core/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace edgequant {
namespace {

double F16Value(int bits) {  // without a sign, finite
  const int e = bits >> 10, m = bits & 1023;
  return e == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, e - 25);
}

TEST(Half, RoundsToTheNearestF16AndTiesToEven) {
  for (int k = 0; k < 0x7bff; ++k) {
    const double a = F16Value(k), b = F16Value(k + 1);
    const float middle = float((a + b) / 2);  // exact
    EXPECT_EQ(F16FromF32(float(a)), k);
    EXPECT_EQ(F16FromF32(float(-a)), k | 0x8000);
    EXPECT_EQ(F16FromF32(middle), k + k % 2);
    EXPECT_EQ(F16FromF32(std::nextafter(middle, 0.0f)), k);
    EXPECT_EQ(F16FromF32(std::nextafter(middle, 1e9f)), k + 1);
  }
  EXPECT_EQ(F16FromF32(65519.99f), 0x7bff);
  EXPECT_EQ(F16FromF32(65520.0f), 0x7c00);
  EXPECT_EQ(F16FromF32(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(F16FromF32(std::nanf("")) & 0x7e00, 0x7e00);
  EXPECT_EQ(F16FromF32(-0.0f), 0x8000);
}

TEST(Half, RoundsToTheNearestBF16AndTiesToEven) {
  EXPECT_EQ(BF16FromF32(1.0f), 0x3f80);
  EXPECT_EQ(BF16FromF32(1.00390625f), 0x3f80);  // half way between 3f80 and 3f81: even
  EXPECT_EQ(BF16FromF32(std::nextafter(1.00390625f, 2.0f)), 0x3f81);
  EXPECT_EQ(BF16FromF32(1.01171875f), 0x3f82);  // half way between 3f81 and 3f82: even
  EXPECT_EQ(BF16FromF32(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(BF16FromF32(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(BF16FromF32(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT_TRUE((BF16FromF32(std::nanf("")) & 0x7fff) > 0x7f80);
}

}  // namespace
}  // namespace edgequant
