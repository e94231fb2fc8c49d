#include "io/text.h"

#include <gtest/gtest.h>

#include <string>

namespace edgequant {
namespace {

// A decoder by the definition: value of the bits, then the ranges. Slow, and unlike the one under test.
bool IsUtf8Slowly(const std::string& s) {
  for (size_t i = 0; i < s.size();) {
    const unsigned first = uint8_t(s[i]);
    const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    if (length == 0 || i + length > s.size()) return false;
    unsigned value = length == 1 ? first : first & (0x7Fu >> length);
    for (size_t k = 1; k < length; ++k) {
      const unsigned next = uint8_t(s[i + k]);
      if (next >> 6 != 2) return false;
      value = value << 6 | (next & 63);
    }
    constexpr unsigned kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < kSmallest[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return false;
    i += length;
  }
  return true;
}

TEST(Text, EveryPairOfBytesAndEveryEdgeOfThree) {
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      const std::string two = {char(a), char(b)};
      ASSERT_EQ(IsUtf8(two), IsUtf8Slowly(two)) << a << " " << b;
      for (const unsigned c : {0x00u, 0x7Fu, 0x80u, 0xBFu, 0xC0u, 0xFFu}) {
        const std::string three = two + char(c), four = three + char(0x80);
        ASSERT_EQ(IsUtf8(three), IsUtf8Slowly(three)) << a << " " << b << " " << c;
        ASSERT_EQ(IsUtf8(four), IsUtf8Slowly(four)) << a << " " << b << " " << c;
      }
    }
  }
}

TEST(Text, BrokenByteAtEveryPlace) {
  for (size_t length = 1; length < 40; ++length)
    for (size_t at = 0; at < length; ++at) {
      std::string text(length, 'a');
      ASSERT_TRUE(IsUtf8(text));
      text[at] = char(0x80);
      ASSERT_FALSE(IsUtf8(text)) << length << " " << at;
    }
}

TEST(Text, QuoteIsSafeOnATerminal) {
  EXPECT_EQ(Quote("blk.0.attn_q.weight"), "\"blk.0.attn_q.weight\"");
  EXPECT_EQ(Quote("gr\xC3\xBC\xC3\x9F"), "\"gr\xC3\xBC\xC3\x9F\"");
  EXPECT_EQ(Quote("\x1b[31m"), "\"\\x1b[31m\"");
  EXPECT_EQ(Quote("a\xC2\x9B" "1m"), "\"a\\xc2\\x9b1m\"");
  EXPECT_EQ(Quote("a\xFF"), "\"a\\xff\"");
  EXPECT_LT(Quote(std::string(100000, 'x')).size(), 200u);
}

}  // namespace
}  // namespace edgequant
