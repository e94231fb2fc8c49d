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

// Few and many lines, columns apart from each other and one behind the other, from a line of the cache on and not.
TEST_P(BitsOnEachTarget, LinesAndTheirColumns) {
  std::mt19937 random(1);
  for (size_t size : {1u, 2u, 4u})
    for (size_t count : {1u, 5u, 32u, 64u, 256u})
      for (size_t n : {1u, 48u, 1000u, 2048u})
        for (size_t apart : {0u, 7u, 64u})
          for (size_t at : {0u, 4u}) {
            const size_t step = WholeSquares(n) * size + 64, column_step = count * size + apart;
            std::vector<uint8_t> lines(WholeSquares(count) * step), memory(n * column_step + 2 * 64 + at, 0xa5);
            for (uint8_t& b : lines) b = uint8_t(random());
            const size_t line = (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
            uint8_t* const columns = memory.data() + line + at;
            LinesToColumns(int(size), lines.data(), step, count, n, columns, column_step);
            std::vector<uint8_t> want(memory.size(), 0xa5), back(lines.size());
            for (size_t i = 0; i < n; ++i)
              for (size_t k = 0; k < count * size; ++k)
                want[line + at + i * column_step + k] = lines[k / size * step + i * size + k % size];
            ASSERT_EQ(memory, want) << size << " x " << count << " x " << n << ", " << apart << " apart, at " << at;
            ColumnsToLines(int(size), columns, column_step, count, n, back.data(), step);
            for (size_t k = 0; k < count; ++k)
              for (size_t i = k * step; i < k * step + n * size; ++i) ASSERT_EQ(back[i], lines[i]) << k << ", " << i;
          }
}

TEST_P(BitsOnEachTarget, SlotsOfBytes) {
  std::mt19937 random(1);
  for (int bits : {1, 2, 4, 8})
    for (int offset : {0, -1, 1 << (bits - 1)})
      for (size_t n : {1u, 63u, 200u, 768u}) {
        std::vector<uint8_t> bytes(n + 1, 0xa5), back(n + 1, 0xa5);
        std::vector<std::vector<uint8_t>> codes(size_t(8 / bits), std::vector<uint8_t>(n));
        for (int bit = 0; bit < 8; bit += bits) {
          for (uint8_t& c : codes[size_t(bit / bits)]) c = uint8_t(random() & ((1u << bits) - 1));
          const uint8_t* const from = codes[size_t(bit / bits)].data();
          if (n % 8 == 0) PutSlot(from, n / 8, 8, n / 8, bits, bit, offset, bit > 0, bytes.data());
          else PutSlot(from, n, 1, n, bits, bit, offset, bit > 0, bytes.data());
        }
        for (int bit = 0; bit < 8; bit += bits) {
          if (n % 8 == 0) TakeSlot(bytes.data(), n / 8, 8, n / 8, bits, bit, offset, back.data());
          else TakeSlot(bytes.data(), n, 1, n, bits, bit, offset, back.data());
          for (size_t i = 0; i < n; ++i) {
            const int code = codes[size_t(bit / bits)][i], mask = (1 << bits) - 1;
            ASSERT_EQ(bytes[i] >> bit & mask, (code + offset) & mask) << bits << ", " << bit << ", " << i;
            ASSERT_EQ(back[i], code) << bits << ", " << bit << ", " << i;
          }
        }
        EXPECT_EQ(bytes.back(), 0xa5);
        EXPECT_EQ(back.back(), 0xa5);
      }
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
