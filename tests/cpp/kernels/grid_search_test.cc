#include "kernels/cpu/grid_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

#include "format/decode.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

constexpr FormatId kGrids[] = {FormatId::kIQ1_S, FormatId::kIQ1_M,   FormatId::kIQ2_XXS, FormatId::kIQ2_XS,
                               FormatId::kIQ2_S, FormatId::kIQ3_XXS, FormatId::kIQ3_S};

const GridIndex& IndexOf(const GridTable* grid) {
  static auto& all = *new std::map<const GridTable*, GridIndex>;
  return all.try_emplace(grid, *grid).first->second;
}

GridProblem ProblemOf(FormatId id) {
  const Block& f = BlockOf(id);
  GridProblem p;
  p.index = &IndexOf(f.map.grid);
  p.signs = f.map.signs.bits == 0 ? GridSigns::kNone : f.map.signs.bits == 7 ? GridSigns::kEven : GridSigns::kFree;
  p.sub = f.scale.sub_group;
  p.scales = 1 << f.scale.sub[0].bits;
  p.unit = f.scale.factor / 2;
  p.delta = f.map.shift;
  p.delta_group = id == FormatId::kIQ1_S ? 32 : id == FormatId::kIQ1_M ? 8 : 0;
  const float top = float(2 * p.scales - 1);
  p.tuning = {4, 0.7f, 1.3f, 1.0f, 16, top - 4, top + 4, 1, 3, 0, true, false};
  return p;
}

std::vector<float> Weights(int blocks, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(size_t(blocks) * kGridBlock);
  for (float& v : x) v = normal(random) * (random() % 50 ? 0.02f : 0.1f);
  return x;
}
std::vector<float> Importance(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> m(n);
  for (float& v : m) v = std::exp(normal(random));
  return m;
}

std::vector<float> Decode(FormatId id, const std::vector<GridBlock>& blocks) {
  std::vector<uint8_t> bytes(blocks.size() * size_t(BlockOf(id).bytes));
  PackGridBlocks(id, blocks.data(), blocks.size(), bytes.data());
  std::vector<float> y(blocks.size() * kGridBlock);
  DequantizeBlocks(id, bytes.data(), blocks.size(), y.data());
  return y;
}

// The least weighted error of 8 weights at a given scale, by trying everything.
double LeastError(const Block& f, const float* x, const float* w, double scale, double shift) {
  const GridTable& grid = *f.map.grid;
  const bool even = f.map.signs.bits == 7, none = f.map.signs.bits == 0;
  bool odd = false;
  for (int i = 0; i < 8; ++i) odd ^= std::signbit(x[i]);
  double kept = 0, flipped = 1e300;  // least error with the natural signs, and with exactly one other
  for (int v = 0; v < 8; v += grid.dim) {
    double least = 1e300, least_flipped = 1e300;
    for (int r = 0; r < grid.rows; ++r) {
      double sum = 0, flip = 1e300;
      for (int i = 0; i < grid.dim; ++i) {
        const double q = scale * (GridValue(grid, r, i) + shift), a = none ? x[v + i] : std::abs(x[v + i]);
        sum += w[v + i] * (a - q) * (a - q);
        flip = std::min(flip, 4 * w[v + i] * a * q);
      }
      least = std::min(least, sum);
      least_flipped = std::min(least_flipped, sum + flip);
    }
    flipped = std::min(flipped + least, kept + least_flipped);
    kept += least;
  }
  return even && odd ? flipped : kept;
}

TEST(GridIndex, RunsHoldAllPointsAndNoOther) {
  for (FormatId id : kGrids) {
    SCOPED_TRACE(NameOf(id));
    const GridTable& grid = *BlockOf(id).map.grid;
    const GridIndex& index = IndexOf(&grid);
    std::set<std::pair<int, int>> points;
    const auto expand = [&](auto&& self, int first, int offset) -> void {
      const int row = offset / GridIndex::kRowBytes;
      if (row < index.half) {
        EXPECT_TRUE(points.insert({first, row}).second);
      } else {
        const GridIndex::Merge& m = index.merges[size_t(row - index.half)];
        self(self, first, m.a);
        self(self, first, m.b);
      }
    };
    const GridIndex::Run* run = index.runs.data();
    for (const GridIndex::RunClass& cl : index.classes)
      for (int r = 0; r < cl.count; ++r, ++run)
        for (int m = 0; m < cl.length; ++m) expand(expand, run->half, index.members[size_t(run->begin + m)]);
    ASSERT_EQ(points.size(), size_t(grid.rows));
    for (const auto& [first, second] : points) {
      const int row = index.row[size_t(first * index.half + second)];
      for (int i = 0; i < grid.dim; ++i) {
        const int side = i >= grid.dim / 2, word = index.word[size_t(side ? second : first)];
        EXPECT_EQ(int8_t(word >> 8 * (i - side * grid.dim / 2)), GridValue(grid, row, i));
      }
    }
  }
}

class GridTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

// Codes, signs and shifts are the best for the scales chosen, so errors are within rounding of the optimum.
TEST_P(GridTarget, PicksTheBestPoints) {
  for (FormatId id : kGrids) {
    SCOPED_TRACE(NameOf(id));
    const Block& f = BlockOf(id);
    const GridProblem p = ProblemOf(id);
    const int n = GetParam() == "SCALAR" ? 2 : 6;
    const std::vector<float> x = Weights(n, 5), m = Importance(x.size(), 6);
    std::vector<GridBlock> blocks(x.size() / kGridBlock);
    SearchGrid(p, x.data(), blocks.size(), m.data(), 0, x.size(), blocks.data());
    const std::vector<float> y = Decode(id, blocks);
    for (size_t k = 0; k < x.size(); k += 8) {
      const GridBlock& b = blocks[k / kGridBlock];
      const double scale = double(F16ToF32(b.d)) * p.unit * (2 * b.scale[k % kGridBlock / size_t(p.sub)] + 1);
      const double shift = b.minus[k % kGridBlock / 8] ? -p.delta : p.delta;
      double error = 0, energy = 0;
      for (size_t i = k; i < k + 8; ++i) {
        error += double(m[i]) * (x[i] - y[i]) * (x[i] - y[i]);
        energy += double(m[i]) * x[i] * x[i];
      }
      // The super-scale moves after the pick by what least squares asks: a last step without a new pick.
      ASSERT_LE(error, 1.2 * LeastError(f, &x[k], &m[k], scale, shift) + 2e-3 * energy) << "weights from " << k;
    }
  }
}

TEST_P(GridTarget, EachBlockIsOnItsOwn) {
  for (FormatId id : kGrids) {
    SCOPED_TRACE(NameOf(id));
    const GridProblem p = ProblemOf(id);
    const std::vector<float> x = Weights(5, 8), m = Importance(512, 9);
    std::vector<GridBlock> together(5), alone(5);
    SearchGrid(p, x.data(), 5, m.data(), 256, 512, together.data());
    for (size_t b = 0; b < 5; ++b) SearchGrid(p, &x[b * kGridBlock], 1, m.data(), 256 + b * kGridBlock, 512, &alone[b]);
    EXPECT_EQ(Decode(id, together), Decode(id, alone));
  }
}

TEST_P(GridTarget, ExtremeWeightsGiveSensibleCodes) {
  const float kMax = 65504, kTiny = 1e-41f;
  for (FormatId id : kGrids) {
    SCOPED_TRACE(NameOf(id));
    for (const GridWeights rule : {GridWeights::kImportance, GridWeights::kSquare, GridWeights::kImportanceRms}) {
      GridProblem p = ProblemOf(id);
      p.weights = rule;
      p.sigma = rule == GridWeights::kImportanceRms ? 2 : 0;
      std::vector<float> x(8 * kGridBlock);
      const auto block = [&](size_t b) { return &x[b * kGridBlock]; };  // block 0: zeros
      std::fill_n(block(1), kGridBlock, 0.7f);
      std::fill_n(block(2), kGridBlock, -3e-3f);
      block(3)[77] = 2.5f;
      std::fill_n(block(4), kGridBlock, kTiny);
      for (int i = 0; i < kGridBlock; ++i) block(5)[i] = i % 3 ? kMax : -kMax;
      for (int i = 0; i < kGridBlock; ++i) block(6)[i] = i < 32 ? 1.0f : 0.0f;
      for (int i = 0; i < kGridBlock; ++i) block(7)[i] = i % 2 ? 1e-30f : 1000.0f;
      std::vector<float> m(x.size(), 1.0f);
      std::fill_n(m.begin(), 300, 0.0f);
      std::vector<GridBlock> blocks(8);
      for (const float* importance : {static_cast<const float*>(nullptr), static_cast<const float*>(m.data())}) {
        SearchGrid(p, x.data(), 8, importance, 0, x.size(), blocks.data());
        const std::vector<float> y = Decode(id, blocks);
        for (size_t b = 0; b < 8; ++b) {
          SCOPED_TRACE(b);
          double error = 0, energy = 0;
          for (size_t i = b * kGridBlock; i < (b + 1) * kGridBlock; ++i) {
            ASSERT_TRUE(std::isfinite(y[i]));
            error += std::pow(double(x[i]) - y[i], 2);
            energy += std::pow(double(x[i]), 2);
          }
          // Squares as weights do not count zeros, whatever these decode to.
          EXPECT_LE(error, energy * (rule == GridWeights::kSquare ? 3 : 1.001));
          if (b == 1 || b == 2) {
            EXPECT_LE(error, 0.15 * energy);
          }
        }
        for (size_t i = 0; i < kGridBlock; ++i) ASSERT_EQ(y[i], 0.0f);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GridTarget, testing::ValuesIn(KernelTargets()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace edgequant
