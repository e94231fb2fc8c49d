#include "kernels/cpu/gemv.h"

#include "core/threads.h"
#include "kernels/products.h"
#include "op/few_rows.h"

namespace edgequant {
namespace {

TEST(Gemv, EveryFormatTargetAndShapeEqualsDoubleArithmetic) {
  ForEachTarget([] {
    std::mt19937 rng(2);
    for (FormatId format : PanelFormats())
      for (const ProductShape& shape :
           {ProductShape{1, 16, 1}, {1, 35, 5}, {2, 17, 2}, {3, 1, 7}, {4, 50, 3}, {6, 20, 2}})
        CheckProduct(format, shape, Compute::kInt8, rng);
  });
}

TEST(Gemv, ExactEqualsFloatArithmetic) {
  ForEachTarget([] {
    std::mt19937 rng(3);
    for (FormatId format : PanelFormats()) CheckProduct(format, {1, 33, 5}, Compute::kExact, rng);
  });
}

// Rows of 16-bit numbers, far apart and at odd addresses, into strided 16-bit results.
TEST(Gemv, TakesStridedHalfPrecisionAtAnyAddress) {
  std::mt19937 rng(4);
  const size_t n = 21, k = 96, m = 3, stride = 2 * k + 5, y_stride = 2 * n + 3;
  const RandomWeights q(FormatId::kQ4_0, n, k, rng);
  const Panel w = Repack(q.View());
  for (FormatId type : {FormatId::kF16, FormatId::kBF16}) {
    std::vector<uint8_t> x(m * stride + 1), y(m * y_stride + 1);
    std::vector<float> wide(m * k), want(m * n);
    for (size_t i = 0; i < m; ++i)
      for (size_t c = 0; c < k; ++c) {
        const float v = float(int(rng() % 2001) - 1000) / 512;
        const uint16_t half = type == FormatId::kF16 ? F16FromF32(v) : BF16FromF32(v);
        memcpy(&x[1 + i * stride + 2 * c], &half, 2);
        wide[i * k + c] = ReadNumber(type == FormatId::kF16 ? Number::kF16 : Number::kBF16, &x[1 + i * stride + 2 * c]);
      }
    Matmul({FormatId::kF32, wide.data(), m, k, ptrdiff_t(4 * k)}, w,
           {FormatId::kF32, want.data(), m, n, ptrdiff_t(4 * n)}, Compute::kInt8);
    Matmul({type, x.data() + 1, m, k, ptrdiff_t(stride)}, w, {type, y.data() + 1, m, n, ptrdiff_t(y_stride)},
           Compute::kInt8);
    for (size_t i = 0; i < m; ++i)
      for (size_t j = 0; j < n; ++j) {
        uint16_t got;
        memcpy(&got, &y[1 + i * y_stride + 2 * j], 2);
        EXPECT_EQ(got, type == FormatId::kF16 ? F16FromF32(want[i * n + j]) : BF16FromF32(want[i * n + j]));
      }
  }
}

// Weights alike in all but the levels of their scales take different kernels.
TEST(Gemv, RowsFitTheNextWeightsToo) {
  std::mt19937 rng(14);
  const size_t n = 16, k = 512;
  const std::vector<float> x = RandomRow(k, rng);
  FewRows rows;
  rows.Quantize({FormatId::kF32, x.data(), 1, k, ptrdiff_t(4 * k)}, Compute::kInt8);
  for (FormatId format : {FormatId::kIQ4_NL, FormatId::kIQ4_XS, FormatId::kIQ4_NL, FormatId::kQ4_K, FormatId::kQ4_1}) {
    const RandomWeights q(format, n, k, rng);
    const Panel w = Repack(q.View());
    alignas(64) float y[FewRows::kMaxRows * kPanelRows];
    std::vector<float> want(n);
    rows.Fit(w);
    rows.Multiply(w, 0, y);
    Matmul({FormatId::kF32, x.data(), 1, k, ptrdiff_t(4 * k)}, w, {FormatId::kF32, want.data(), 1, n, ptrdiff_t(4 * n)},
           Compute::kInt8);
    for (size_t j = 0; j < n; ++j) EXPECT_EQ(y[j], want[j]) << NameOf(format);
  }
}

TEST(Gemv, IsTheSameAtAnyNumberOfThreads) {
  std::mt19937 rng(5);
  const size_t n = 1000, k = 2048;
  const RandomWeights q(FormatId::kQ4_K, n, k, rng);
  const Panel w = Repack(q.View());
  const std::vector<float> x = RandomRow(9 * k, rng);
  for (size_t m : {size_t{1}, size_t{9}}) {
    std::vector<float> first;
    for (int threads : {1, 2, 5}) {
      SetNumThreads(threads);
      std::vector<float> y(m * n);
      Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, w, {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)},
             Compute::kInt8);
      if (first.empty()) first = y;
      EXPECT_EQ(y, first) << threads << " threads, " << m << " rows";
    }
  }
  SetNumThreads(0);
}

}  // namespace
}  // namespace edgequant
