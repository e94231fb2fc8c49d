#include "format/panel.h"

#include <hwy/aligned_allocator.h>

#include <algorithm>

#include "kernels/cpu/panel_pack.h"
#include "kernels/panel_cases.h"

namespace edgequant {
namespace {

// One weight of a panel, read as the layout's description says, without any kernel.
double ReadWeight(const Panel& w, size_t row, size_t k) {
  const PanelLayout& p = w.layout;
  const uint8_t* panel = w.data.get() + row / 16 * p.PanelBytes(w.cols);
  const size_t r = row % 16, g = k / size_t(p.group), at = g % size_t(p.groups_per_header);
  const uint8_t* header = panel + p.HeaderAt(g);
  const size_t unit =
      g / size_t(p.groups_per_header) * size_t(p.groups_per_header) * size_t(p.group);  // first k behind the header
  const uint8_t* lines = header + p.header_bytes() + (k - unit) / 32 * size_t(p.bits) * 64;
  const size_t step = k % 32 / 4, byte = r * 4 + k % 4;
  const int low = p.bits >= 8 ? 8 : p.bits >= 4 ? 4 : p.bits >= 2 ? 2 : 1, high = p.bits - low;
  const auto plane = [&](const uint8_t* from, int width) {
    const size_t per_line = size_t(8 / width);
    return from[step / per_line * 64 + byte] >> (size_t(width) * (step % per_line)) & ((1 << width) - 1);
  };
  int code = plane(lines, low);
  if (high != 0) code |= plane(lines + low * 64, high) << low;
  const int value = p.table       ? p.values[code]
                    : p.bits == 8 ? int8_t(code)
                    : p.bits == 1 ? 2 * code - p.zero
                                  : code - p.zero;
  const auto f16 = [](const uint8_t* q) { return double(ReadNumber(Number::kF16, q)); };
  double scale = 0, minimum = 0;
  switch (p.scale) {
    case PanelScale::kF16:
    case PanelScale::kBF16:
    case PanelScale::kF32: {
      const Number number = p.scale == PanelScale::kF16    ? Number::kF16
                            : p.scale == PanelScale::kBF16 ? Number::kBF16
                                                           : Number::kF32;
      const size_t bytes = p.number_bytes();
      scale = double(ReadNumber(number, header + (at * 16 + r) * bytes));
      if (p.minima) minimum = double(ReadNumber(number, header + ((2 + at) * 16 + r) * bytes));
      break;
    }
    case PanelScale::kE8M0: scale = double(ReadNumber(Number::kE8M0Half, header + at * 16 + r)); break;
    case PanelScale::kUE4M3: {  // seven bits: 4 of exponent (bias 7, and 8 for the division), 3 of mantissa
      const int stored = header[at * 16 + r], exponent = stored >> 3, mantissa = stored & 7;
      scale = exponent != 0 ? std::ldexp(8 + mantissa, exponent - 18) : std::ldexp(mantissa, -17);
      break;
    }
    case PanelScale::kInt8:
      scale = f16(header + 2 * r) * int8_t(header[64 + at * 16 + r]);
      if (p.minima)
        minimum = f16(header + 32 + 2 * r) * int8_t(header[64 + (size_t(p.groups_per_header) + at) * 16 + r]);
      break;
    case PanelScale::kNibble:
      scale = f16(header + 2 * r) * (header[64 + at * 16 + r] & 15);
      minimum = f16(header + 32 + 2 * r) * (header[64 + at * 16 + r] >> 4);
      break;
    case PanelScale::kSign:
      scale = f16(header + 2 * r) * std::abs(int8_t(header[64 + at * 16 + r]));
      minimum = f16(header + 32 + 2 * r) * int8_t(header[64 + at * 16 + r]);
      break;
  }
  return double(p.factor) * scale * value + double(p.min_factor) * minimum;
}

TEST(Panel, HoldsEveryFormatExactly) {
  ForEachTarget([] {
    std::mt19937 rng(1);
    for (FormatId format : PanelFormats()) {
      SCOPED_TRACE(NameOf(format));
      const size_t n = size_t(BlockOf(format).n);
      for (size_t blocks : {size_t{1}, 256 / n + 1, 3 * 256 / n}) {
        const RandomWeights q(format, 19, blocks * n, rng);
        const Panel w = Repack(q.View(), PanelKind::kFast);
        if (w.layout.grid) continue;  // grid_products_test.cc
        ASSERT_EQ(w.bytes, 2 * w.layout.PanelBytes(q.cols));
        for (size_t row = 0; row < q.rows; ++row)
          for (size_t k = 0; k < q.cols; ++k) {
            const double want = q.At(row, k);
            ASSERT_NEAR(ReadWeight(w, row, k), want, 1e-6 * std::fabs(want) + 1e-6)
                << "row " << row << ", column " << k;
          }
      }
    }
  });
}

// Orders of bits that no built-in format has: nibble pairs, a stream of 3 bits across bytes, most significant bits
// first, AWQ's interleaving, 5 bits in three places. Packed from blocks or from codes, panels are the same.
TEST(Panel, TakesAnyOrderOfBits) {
  const Level d = {Number::kF16, 0};
  const Block blocks[] = {
      {32, 18, {Stream(2, 4)}, Affine(8), d},
      {32, 14, {Stream(2, 3)}, Affine(4), d},
      {64, 10, {Strided(23, 1, 8, -1, 1, 0, 8)}, Affine(1), d},
      {32, 18, {Strided(16, 4, 2, 16, 4, 4, 32)}, Affine(8), d},
      {64, 42, {Stream(2, 2), Stream(18, 2, 2), Stream(34, 1, 4)}, Affine(16), d},
      {16, 18, {Signed8(2)}, Affine(0), d},
  };
  ForEachTarget([&] {
    std::mt19937 rng(12);
    for (const Block& b : blocks) {
      SCOPED_TRACE(&b - blocks);
      PanelLayout layout;
      ASSERT_TRUE(PanelOf(b, &layout));
      const size_t n = size_t(b.n), bytes = size_t(b.bytes), count = 11;
      for (size_t per_row : {size_t{2}, 256 / n + 2}) {
        const size_t cols = per_row * n, groups = layout.GroupsOf(cols);
        std::vector<uint8_t> data(count * per_row * bytes), codes(count * cols);
        std::vector<uint16_t> scales(count * groups);
        for (uint8_t& c : data) c = uint8_t(rng() >> 24);
        const uint8_t* rows[kPanelRows] = {};
        for (size_t r = 0; r < count; ++r) {
          rows[r] = &data[r * per_row * bytes];
          for (size_t k = 0; k < cols; ++k) {
            const uint8_t* block = rows[r] + k / n * bytes;
            for (const Field& f : b.codes) codes[r * cols + k] |= uint8_t(ReadField(f, block, int(k % n)));
            memcpy(&scales[r * groups + k / n], block, 2);
          }
        }
        const size_t size = layout.PanelBytes(cols);
        const auto from_blocks = hwy::AllocateAligned<uint8_t>(size), from_codes = hwy::AllocateAligned<uint8_t>(size);
        memset(from_blocks.get(), 0xee, size);
        memset(from_codes.get(), 0x11, size);
        PackPanel(PackRecipe(b, layout), rows, cols, from_blocks.get());
        const PackPlan& plan = BytePlan(layout.bits);
        PackPanelCodes({codes.data(), cols, cols, &plan, false, 0, scales.data(), nullptr, groups, count}, layout, cols,
                       from_codes.get());
        for (size_t i = 0; i < size; ++i) ASSERT_EQ(from_blocks[i], from_codes[i]) << "byte " << i;
      }
    }
  });
}

TEST(Panel, KeepsTheFormatsRate) {
  for (FormatId format : PanelFormats()) {
    const Block& b = BlockOf(format);
    PanelLayout layout;
    ASSERT_TRUE(PanelOf(b, &layout));
    const double bits = double(layout.PanelBytes(4096)) * 8 / 16 / 4096, stored = double(b.bytes) * 8 / b.n;
    // base-3 digits become 2 bits, 6-bit scales bytes, rows of a grid codes of 3 or 4 bits for their 6 or 16 values
    const double most = b.map.kind == MapKind::kGrid  ? double(layout.bits) + 8.0 / layout.group + 32.0 / 256
                        : format == FormatId::kTQ1_0 ? 2.0625
                                                     : stored + 0.1876;
    EXPECT_LE(bits, most) << NameOf(format);
  }
}

TEST(Panel, GridsAreSmallTables) {
  PanelLayout layout;
  ASSERT_TRUE(PanelOf(BlockOf(FormatId::kIQ2_XXS), &layout));
  EXPECT_EQ(layout.bits, 3);
  EXPECT_EQ(std::vector<int>(layout.values, layout.values + 8), (std::vector<int>{8, 25, 43, 0, -8, -25, -43, 0}));
  ASSERT_TRUE(PanelOf(BlockOf(FormatId::kIQ3_S), &layout));
  EXPECT_EQ(layout.bits, 4);
  ASSERT_TRUE(PanelOf(BlockOf(FormatId::kIQ1_M), &layout));
  EXPECT_EQ(std::vector<int>(layout.values, layout.values + 8), (std::vector<int>{-7, 1, 9, 1, -9, -1, 7, -1}));
}

TEST(Panel, RefusesWhatHasNone) {
  EXPECT_FALSE(CanRepack(FormatId::kF32));
  const std::vector<uint8_t> bytes(4 * 16, 0);
  EXPECT_THROW(Repack({FormatId::kF32, bytes.data(), 1, 16}), Error);
}

}  // namespace
}  // namespace edgequant
