#include "op/scheme_panel.h"

#include "kernels/panel_cases.h"

namespace edgequant {
namespace {

// Random codes of `bits`, one byte each, and scales and minima of any type that are near 2^-6.
struct RandomScheme {
  Scheme scheme;
  size_t rows, cols;
  std::vector<uint8_t> codes, scale, shift;

  RandomScheme(Cell cell, int bits, int group, Zero zeros, size_t n, size_t k, std::mt19937& rng) : rows(n), cols(k) {
    scheme.name = "own";
    scheme.bits = bits;
    scheme.codes = 1 << bits;
    scheme.zero = zeros == Zero::kNone ? float(1 << (bits - 1)) : 0;
    scheme.group = group;
    scheme.zeros = zeros;
    scheme.code.bits = bits;
    SetNumbers(scheme.scale, scale, cell, rng);
    if (zeros != Zero::kNone) SetNumbers(scheme.shift, shift, cell, rng);
    const PlaneShape shape = ArrayOf(scheme, Part::kCode, rows, cols);
    codes.resize(shape.outer * shape.inner);
    for (uint8_t& c : codes) c = uint8_t(rng() >> 24);
  }
  SchemeView View() const {
    SchemeView q{&scheme, rows, cols, {}, nullptr};
    q.arrays[Part::kCode] = codes.data();
    q.arrays[Part::kScale] = scale.data();
    q.arrays[Part::kShift] = shift.data();
    return q;
  }

 private:
  void SetNumbers(Plane& plane, std::vector<uint8_t>& to, Cell cell, std::mt19937& rng) {
    plane.cell = cell;
    plane.bits = plane.word = cell == Cell::kF32 ? 32 : 16;
    const size_t bytes = size_t(plane.bits / 8);
    to.resize(rows * scheme.GroupsOf(cols) * bytes);
    for (size_t i = 0; i < to.size(); i += bytes) {
      const float v = std::ldexp(1 + float(rng() % 99991) / 99991, -6) * (rng() % 3 ? 1.0f : -1.0f);
      const uint16_t half = cell == Cell::kF16 ? F16FromF32(v) : BF16FromF32(v);
      if (cell == Cell::kF32) memcpy(&to[i], &v, 4);
      else memcpy(&to[i], &half, 2);
    }
  }
};

// Scales of each type, groups that 16 divides, that are filled up, and that have no panel.
TEST(SchemePanel, ExactProductsAreThoseOfTheDecodedWeights) {
  ForEachTarget([] {
    std::mt19937 rng(1);
    for (Cell cell : {Cell::kF16, Cell::kBF16, Cell::kF32})
      for (Zero zeros : {Zero::kNone, Zero::kMinimum, Zero::kFloat})
        for (int group : {0, 32, 24, 8, 5, 3})
          for (int bits : {1, 4, 8}) {
            const size_t n = 21, k = 1000;
            SCOPED_TRACE(std::to_string(int(cell)) + " " + std::to_string(int(zeros)) + " " + std::to_string(group) +
                         " " + std::to_string(bits));
            const RandomScheme q(cell, bits, group, zeros, n, k, rng);
            std::vector<float> weights(n * k);
            DequantizeScheme(q.View(), 0, n, weights.data());
            const Panel w = RepackExactly(q.View());
            EXPECT_EQ(w.floats != nullptr, group == 3);
            for (size_t m : {size_t{1}, size_t{5}, size_t{30}}) {
              const std::vector<float> x = RandomRow(m * k, rng);
              std::vector<float> y(m * n);
              Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, w,
                     {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)}, Compute::kExact);
              for (size_t i = 0; i < m; ++i)
                for (size_t j = 0; j < n; ++j) {
                  double want = 0, size = 0;
                  for (size_t c = 0; c < k; ++c) {
                    const double product = double(weights[j * k + c]) * double(x[i * k + c]);
                    want += product, size += std::fabs(product);
                  }
                  ASSERT_NEAR(y[i * n + j], want, 2e-6 * size) << "row " << i << ", column " << j;
                }
            }
          }
  });
}

// Rows that are decoded piece by piece: pieces end within groups, and codes lie in streams and in bytes.
TEST(SchemePanel, RowsAreDecodedInPieces) {
  std::mt19937 rng(2);
  for (int group : {0, 32, 48, 80, 24, 3})
    for (int bits : {3, 5, 8}) {
      const size_t n = 9, k = 3360;
      const RandomScheme q(Cell::kF32, bits, group, Zero::kMinimum, n, k, rng);
      std::vector<float> weights(n * k), piece(k);
      DequantizeScheme(q.View(), 0, n, weights.data());
      const Panel w = KeepRows(q.View());
      ASSERT_NE(w.floats, nullptr);
      for (size_t row = 0; row < n; ++row)
        for (size_t at = 0; at < k; at += 1024) {
          const size_t count = std::min<size_t>(1024, k - at);
          w.floats->decode(row, at, count, piece.data());
          for (size_t i = 0; i < count; ++i)
            ASSERT_EQ(piece[i], weights[row * k + at + i]) << "groups of " << group << ", column " << at + i;
        }
    }
}

}  // namespace
}  // namespace edgequant
