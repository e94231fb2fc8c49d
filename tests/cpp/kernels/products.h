// Runs Matmul on random data and compares with double arithmetic.
#pragma once
#include "kernels/panel_cases.h"

namespace edgequant {

struct ProductShape {
  size_t m, n, blocks;
};

// All results of m rows against double arithmetic on decoded weights and, for kInt8, on rounded activations. Only the
// order of sums differs, so errors are some float roundings of the sum of magnitudes.
inline void CheckProduct(FormatId format, const ProductShape& shape, Compute compute, std::mt19937& rng,
                         PanelKind kind = PanelKind::kFast) {
  const size_t k = shape.blocks * size_t(BlockOf(format).n);
  SCOPED_TRACE(std::string(NameOf(format)) + " " + std::to_string(shape.m) + " x " + std::to_string(shape.n) + " x " +
               std::to_string(k));
  const RandomWeights q(format, shape.n, k, rng);
  const Panel w = Repack(q.View(), kind);
  std::vector<float> x = RandomRow(shape.m * k + 1, rng), y(shape.m * shape.n + 1, -7.0f);
  const std::vector<float> bias = RandomRow(shape.n, rng), scale = RandomRow(shape.n, rng);
  Matmul({FormatId::kF32, x.data() + 1, shape.m, k, ptrdiff_t(4 * k)}, w,
         {FormatId::kF32, y.data(), shape.m, shape.n, ptrdiff_t(4 * shape.n)}, compute,
         {scale.data(), bias.data()});
  EXPECT_EQ(y.back(), -7.0f);  // nothing behind the end
  std::vector<std::vector<double>> weights(shape.n, std::vector<double>(k));
  for (size_t j = 0; j < shape.n; ++j)
    for (size_t c = 0; c < k; ++c) weights[j][c] = q.At(j, c);
  for (size_t i = 0; i < shape.m; ++i) {
    const float* row = x.data() + 1 + i * k;
    const std::vector<double> rounded =
        compute == Compute::kInt8 ? RoundedToInt8(row, k) : std::vector<double>(row, row + k);
    for (size_t j = 0; j < shape.n; ++j) {
      double want = bias[j], size = std::fabs(bias[j]);
      for (size_t c = 0; c < k; ++c) {
        want += weights[j][c] * rounded[c] * double(scale[j]);
        size += std::fabs(weights[j][c] * rounded[c] * double(scale[j]));
      }
      ASSERT_NEAR(y[i * shape.n + j], want, 2e-6 * size + 1e-6) << "row " << i << ", column " << j;
    }
  }
}

}  // namespace edgequant
