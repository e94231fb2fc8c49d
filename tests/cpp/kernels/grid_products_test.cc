#include "kernels/cpu/grid_products.h"

#include "kernels/products.h"
#include "op/vectors.h"

namespace edgequant {
namespace {

// The value of weight `at` of a block, of row r of a panel of trits of `levels`; and its scale code, if it is there.
int ReadTrit(const GridPanel& grid, const int8_t* levels, const uint8_t* lines, size_t r, size_t at, int* scale) {
  const size_t u = at / 32, odd = at % 32 / 16, byte = r * 4 + at % 16 / 4, i = at % 4;
  const int powers[] = {1, 3, 9};
  if (!grid.signs) {
    const int v = lines[(2 * u + odd) * 64 + byte];
    return 8 * levels[i == 3 ? v >> 6 : (v & 31) / powers[i] % 3] + (v >> 5 & 1 ? -1 : 1);
  }
  const uint8_t* const unit = lines + 3 * u * 64;
  const int v = unit[odd * 64 + byte], last = unit[128 + byte] >> 3 * odd & 7;
  *scale = unit[128 + r * 4 + 2 * odd] >> 6 | unit[128 + r * 4 + 2 * odd + 1] >> 6 << 2;
  const int level = levels[i == 3 ? last & 3 : (v >> 1 & 31) / powers[i] % 3];
  return (i == 3 ? last >> 2 : i == 0 ? v & 1 : v >> (5 + i) & 1) ? -level : level;
}
int ReadRow(const GridPanel& grid, const uint8_t* lines, size_t r, size_t at) {
  const size_t dim = size_t(grid.dim), code = at / dim, line = code / 4, byte = r * 4 + code % 4;
  size_t number = lines[line * 64 + byte];
  const uint8_t* high = lines + grid.code_lines() * 64;
  for (int bit = 8; bit < grid.code_bits; ++bit, high += grid.code_lines() / 8 * 64)
    number |= size_t(high[line / 8 * 64 + byte] >> line % 8 & 1) << bit;
  const size_t j = at % dim, half = dim / 2, bits = dim == 8 ? 2 : 3;
  int entry = grid.planes[j / half][number] >> j % half * (8 / half) & ((1 << bits) - 1);
  const uint8_t* signs = lines + (grid.code_lines() + grid.high_lines()) * 64;
  if (grid.signs) {  // a byte per 4 weights, of both halves of 32 k
    const size_t of = at % 16 / 4, i = at % 4;
    entry |= (signs[at / 32 * 64 + r * 4 + of] >> GridSignBit(grid.dim, int(i), int(at % 32 / 16)) & 1) << bits;
  }
  if (grid.shift == GridShift::kCode) entry |= (signs[byte] >> (7 - line % 8) & 1) << 3;
  return grid.values[entry];
}

// A weight of a panel of a grid, read as the description says, without any kernel.
double ReadWeight(const Panel& w, FormatId format, size_t row, size_t k) {
  const PanelLayout& p = w.layout;
  const GridPanel& grid = *p.grid;
  const size_t r = row % 16, b = k / 256, at = k % 256, g = at / size_t(p.group);
  const uint8_t* header = w.data.get() + row / 16 * p.PanelBytes(w.cols) + b / 2 * p.grid_bytes;
  const size_t scales = size_t(grid.scale_lines(p.group)) * 64;
  const uint8_t* codes = header + 64 + b % 2 * scales;
  const uint8_t* lines = header + 64 + 2 * scales + b % 2 * size_t(grid.lines()) * 64;
  const int8_t* const levels = BlockOf(format).map.grid->levels;
  int s = codes[g / 8 * 64 + r * 4 + g % 8 / 2] >> g % 2 * 4 & 15;
  const int value = grid.trits ? ReadTrit(grid, levels, lines, r, at, &s) : ReadRow(grid, lines, r, at);
  const double d = double(ReadNumber(Number::kF16, header + (b % 2 * 16 + r) * 2));
  if (grid.shift != GridShift::kGroup) return double(p.factor) * d * (2 * s + 1) * value;
  const int scale = 2 * (s & 7) + 1;
  return d * scale * (double(p.factor) * value + double(p.min_factor) * (s & 8 ? -1 : 1));
}

void CheckWeights(const Panel& w, const RandomWeights& q) {
  ASSERT_EQ(w.bytes, 2 * w.layout.PanelBytes(q.cols));
  for (size_t row = 0; row < q.rows; ++row)
    for (size_t k = 0; k < q.cols; ++k) {
      const double want = q.At(row, k);
      ASSERT_NEAR(ReadWeight(w, q.format, row, k), want, 1e-6 * std::fabs(want)) << "row " << row << ", column " << k;
    }
}

TEST(CompactPanel, HoldsGridsExactly) {
  ASSERT_EQ(CompactFormats().size(), 7u);
  ForEachTarget([] {
    std::mt19937 rng(21);
    for (FormatId format : CompactFormats())
      for (size_t blocks : {size_t{1}, size_t{2}, size_t{5}}) {
        SCOPED_TRACE(NameOf(format));
        const RandomWeights q(format, 19, blocks * 256, rng);
        CheckWeights(Repack(q.View(), PanelKind::kCompact), q);
      }
  });
}

// The fast panels of trits, of machines that look up bytes in registers; others have single weights (panel_test.cc).
TEST(Trits, HoldGridsExactly) {
  ForEachTarget([] {
    std::mt19937 rng(25);
    int found = 0;
    for (FormatId format : CompactFormats())
      for (size_t blocks : {size_t{1}, size_t{2}, size_t{5}}) {
        SCOPED_TRACE(NameOf(format));
        const RandomWeights q(format, 19, blocks * 256, rng);
        const Panel w = Repack(q.View(), PanelKind::kFast);
        if (w.layout.grid) CheckWeights(w, q), ++found;
      }
    EXPECT_EQ(found, GridsAreFast() ? 3 * 5 : 0);
  });
}

// A panel stays when another instruction set is chosen.
TEST(Trits, AreMultipliedOnEveryTarget) {
  std::mt19937 rng(26);
  const size_t n = 40, k = 768;
  for (FormatId format : CompactFormats()) {
    SCOPED_TRACE(NameOf(format));
    const RandomWeights q(format, n, k, rng);
    const Panel w = Repack(q.View(), PanelKind::kFast);
    for (size_t m : {size_t{1}, size_t{2}, size_t{4}, size_t{11}}) {
      const std::vector<float> x = RandomRow(m * k, rng);
      std::vector<float> first;
      ForEachTarget([&] {
        std::vector<float> y(m * n);
        Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, w,
               {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)}, Compute::kInt8);
        if (first.empty()) first = y;
        for (size_t i = 0; i < m * n; ++i) EXPECT_NEAR(y[i], first[i], 1e-4);
      });
    }
  }
}

TEST(CompactPanel, KeepsTheFormatsRate) {
  for (FormatId format : CompactFormats()) {
    const Block& b = BlockOf(format);
    const std::vector<uint8_t> zeros(16 * RowBytes(format, 4096), 0);
    const Panel w = Repack({format, zeros.data(), 16, 4096}, PanelKind::kCompact);
    EXPECT_LE(double(w.bytes) * 8 / 16 / 4096, double(b.bytes) * 8 / b.n + 0.125) << NameOf(format);
  }
}

TEST(CompactPanel, EveryFormatTargetAndShapeEqualsDoubleArithmetic) {
  ForEachTarget([] {
    std::mt19937 rng(22);
    for (FormatId format : CompactFormats()) {
      for (const ProductShape& shape :
           {ProductShape{1, 16, 1}, {1, 35, 5}, {2, 17, 2}, {3, 1, 7}, {4, 50, 3}, {5, 16, 1}, {9, 70, 3}})
        CheckProduct(format, shape, Compute::kInt8, rng, PanelKind::kCompact);
      for (const ProductShape& shape : {ProductShape{1, 33, 5}, {3, 50, 3}})
        CheckProduct(format, shape, Compute::kExact, rng, PanelKind::kCompact);
    }
  });
}

// Sums of integers are the same in both panels, and so are all roundings, but where shifts are added apart.
TEST(CompactPanel, GivesTheResultsOfTheFastOne) {
  ForEachTarget([] {
    std::mt19937 rng(23);
    const size_t n = 40, k = 1280;
    for (FormatId format : CompactFormats()) {
      SCOPED_TRACE(NameOf(format));
      const RandomWeights q(format, n, k, rng);
      for (size_t m : {size_t{1}, size_t{2}, size_t{4}, size_t{11}}) {
        const std::vector<float> x = RandomRow(m * k, rng);
        std::vector<float> y[2];
        for (int i = 0; i < 2; ++i) {
          y[i].resize(m * n);
          Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)},
                 Repack(q.View(), i ? PanelKind::kCompact : PanelKind::kFast),
                 {FormatId::kF32, y[i].data(), m, n, ptrdiff_t(4 * n)}, Compute::kInt8);
        }
        for (size_t i = 0; i < m * n; ++i) {
          if (BlockOf(format).map.shift == 0) EXPECT_EQ(y[0][i], y[1][i]);
          else EXPECT_NEAR(y[0][i], y[1][i], 1e-4);
        }
      }
    }
  });
}

// QuIP#'s words are no blocks: they become such on the way.
TEST(CompactPanel, OfE8PEqualsDoubleArithmetic) {
  ForEachTarget([] {
    std::mt19937 rng(24);
    const size_t n = 32, k = 768;
    std::vector<uint64_t> words(n * k / 32);
    for (uint64_t& w : words) w = uint64_t(rng()) << 32 | rng();
    std::vector<float> weights(n * k);
    DecodeE8P(words.data(), n, k, 0.03f, weights.data());
    const Panel panel = RepackE8P(words.data(), n, k, 0.03f);
    for (size_t m : {size_t{1}, size_t{2}, size_t{4}, size_t{11}}) {
      const std::vector<float> x = RandomRow(m * k, rng);
      std::vector<float> y(m * n);
      Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, panel,
             {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)}, Compute::kExact);
      for (size_t i = 0; i < m; ++i)
        for (size_t j = 0; j < n; ++j) {
          double want = 0, size = 0;
          for (size_t c = 0; c < k; ++c) {
            want += double(x[i * k + c]) * double(weights[j * k + c]);
            size += std::fabs(double(x[i * k + c]) * double(weights[j * k + c]));
          }
          ASSERT_NEAR(y[i * n + j], want, 2e-6 * size + 1e-6) << "row " << i << ", column " << j;
        }
    }
  });
  uint64_t word = 0;
  EXPECT_THROW(RepackE8P(&word, 16, 64, 1), Error);
}

TEST(CompactPanel, IsChosenByTheCaller) {
  const std::vector<uint8_t> zeros(RowBytes(FormatId::kIQ2_S, 512), 0);
  const TensorView q{FormatId::kIQ2_S, zeros.data(), 1, 512};
  EXPECT_LT(Repack(q, PanelKind::kCompact).bytes, Repack(q, PanelKind::kFast).bytes);
  SetPanel(PanelKind::kCompact);
  EXPECT_NE(Repack(q).layout.grid, nullptr);
  SetPanel(PanelKind::kFast);
  EXPECT_EQ(Repack(q).layout.grid != nullptr, GridsAreFast());
  SetPanel(PanelKind::kAuto);
  EXPECT_EQ(ChoosePanel(FormatId::kQ4_K, PanelKind::kCompact), PanelKind::kFast);
}

}  // namespace
}  // namespace edgequant
