#include "kernels/cpu/gemm.h"

#include <string.h>

#include <limits>

#include "kernels/products.h"

namespace edgequant {
namespace {

TEST(Gemm, EveryFormatTargetAndShapeEqualsDoubleArithmetic) {
  ForEachTarget([] {
    std::mt19937 rng(6);
    for (FormatId format : PanelFormats())
      for (const ProductShape& shape : {ProductShape{5, 16, 1}, {9, 70, 3}, {10, 50, 1}, {7, 40, 2}})
        CheckProduct(format, shape, Compute::kInt8, rng);
  });
}

TEST(Gemm, ExactEqualsFloatArithmetic) {
  ForEachTarget([] {
    std::mt19937 rng(7);
    for (FormatId format : PanelFormats()) CheckProduct(format, {3, 50, 3}, Compute::kExact, rng);
  });
}

#if defined(__aarch64__)
// sdot, smmla and 16-bit multiplies make the same integers, and what follows is the same arithmetic.
TEST(Gemm, UnitsOfArmAgreeBitByBit) {
  if (KernelTargets().size() == 1) GTEST_SKIP() << "this processor has one only";
  for (FormatId format : PanelFormats())
    for (PanelKind kind : {PanelKind::kFast, PanelKind::kCompact})
      for (size_t m : {size_t{1}, size_t{4}, size_t{7}}) {
        std::mt19937 rng(17);
        const size_t n = 37, k = 512;
        const RandomWeights q(format, n, k, rng);
        const Panel w = Repack(q.View(), kind);
        const std::vector<float> x = RandomRow(m * k, rng);
        std::vector<float> first;
        for (const std::string& target : KernelTargets()) {
          ASSERT_TRUE(UseKernelTarget(target));
          std::vector<float> y(m * n);
          Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, w,
                 {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)}, Compute::kInt8);
          if (first.empty()) first = y;
          EXPECT_EQ(memcmp(first.data(), y.data(), y.size() * sizeof(float)), 0)
              << NameOf(format) << " " << m << " " << target;
        }
      }
  UseKernelTarget("");
}
#endif

TEST(Gemm, ManyRowsInSeveralChunks) {
  std::mt19937 rng(8);
  CheckProduct(FormatId::kQ5_K, {521, 49, 2}, Compute::kInt8, rng);
  CheckProduct(FormatId::kQ6_K, {131, 17, 3}, Compute::kExact, rng);
}

// Several experts of each row, some without rows, with few and with many: as one product per row.
TEST(Gemm, GroupedEqualsOneRowAfterTheOther) {
  std::mt19937 rng(13);
  const size_t n = 37, k = 512, tokens = 300, per_row = 2;  // more than are multiplied at once
  std::vector<RandomWeights> q;
  for (FormatId format : {FormatId::kQ4_K, FormatId::kQ2_K, FormatId::kQ5_1, FormatId::kIQ4_XS, FormatId::kQ8_0})
    q.emplace_back(format, n, k, rng);
  std::vector<Panel> panels;
  std::vector<const Panel*> experts;
  for (const RandomWeights& w : q) panels.push_back(Repack(w.View()));
  for (const Panel& p : panels) experts.push_back(&p);
  std::vector<int64_t> index(tokens * per_row);
  for (int64_t& e : index) e = rng() % 3 ? 0 : int64_t(rng() % 4);
  const std::vector<float> x = RandomRow(tokens * k, rng), bias = RandomRow(experts.size() * n, rng);
  for (Compute compute : {Compute::kInt8, Compute::kExact}) {
    std::vector<float> y(index.size() * n), want(n);
    MatmulGrouped({FormatId::kF32, x.data(), tokens, k, ptrdiff_t(4 * k)}, experts, index.data(), per_row,
                  {FormatId::kF32, y.data(), index.size(), n, ptrdiff_t(4 * n)}, compute,
                  {nullptr, bias.data()});
    for (size_t i = 0; i < index.size(); ++i) {
      Matmul({FormatId::kF32, &x[i / per_row * k], 1, k, ptrdiff_t(4 * k)}, *experts[size_t(index[i])],
             {FormatId::kF32, want.data(), 1, n, ptrdiff_t(4 * n)}, compute,
             {nullptr, &bias[size_t(index[i]) * n]});
      for (size_t j = 0; j < n; ++j)
        ASSERT_NEAR(y[i * n + j], want[j], 1e-4 * (1 + std::fabs(want[j]))) << i << " " << j;
    }
  }
  index[3] = 5;
  std::vector<float> y(index.size() * n);
  EXPECT_THROW(MatmulGrouped({FormatId::kF32, x.data(), tokens, k, ptrdiff_t(4 * k)}, experts, index.data(), per_row,
                             {FormatId::kF32, y.data(), index.size(), n, ptrdiff_t(4 * n)}, Compute::kInt8),
               Error);
}

TEST(Gemm, AnythingGoesForEmptyShapes) {
  std::mt19937 rng(9);
  const RandomWeights q(FormatId::kQ4_0, 4, 32, rng);
  const Panel w = Repack(q.View());
  Matmul({FormatId::kF32, nullptr, 0, 32, 128}, w, {FormatId::kF32, nullptr, 0, 4, 16}, Compute::kInt8);
  float x[33] = {}, y[4];
  EXPECT_THROW(Matmul({FormatId::kF32, x, 1, 33, 132}, w, {FormatId::kF32, y, 1, 4, 16}, Compute::kInt8), Error);
  EXPECT_THROW(Matmul({FormatId::kF32, x, 1, 32, 128}, w, {FormatId::kF32, y, 1, 3, 12}, Compute::kInt8), Error);
}

// Extreme activations stay finite; what is not finite spoils its own row only.
TEST(Gemm, ExtremeActivations) {
  std::mt19937 rng(10);
  const size_t n = 20, k = 512;
  const RandomWeights q(FormatId::kQ4_0, n, k, rng);
  const Panel w = Repack(q.View());
  for (size_t m : {size_t{1}, size_t{6}})
    for (Compute compute : {Compute::kInt8, Compute::kExact})
      for (float size : {0.0f, 1e-40f, 1e-30f, 1e30f}) {
        std::vector<float> x(m * k, size), y(m * n), last;
        const auto run = [&] {
          Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, w,
                 {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)}, compute);
        };
        run();
        for (float v : y) EXPECT_TRUE(std::isfinite(v));
        last = y;
        x[300] = std::numeric_limits<float>::infinity();
        run();
        for (size_t j = 0; j < n; ++j) EXPECT_TRUE(std::isnan(y[j]));
        for (size_t j = n; j < m * n; ++j) EXPECT_EQ(y[j], last[j]);
      }
}

}  // namespace
}  // namespace edgequant
