// Products with weights that are no panel, and with panels whose inputs are prepared, on every instruction set.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/threads.h"
#include "op/scheme_panel.h"
#include "op/vectors.h"

#include "kernels/panel_cases.h"

namespace edgequant {
namespace {

struct Matrix {
  size_t rows, cols;
  std::vector<double> w;
};

// All results against double; x is strided and not aligned.
void CheckFloats(const Panel& w, const Matrix& want, size_t m, std::mt19937& rng, double tolerance = 1e-6) {
  SCOPED_TRACE(w.format + " " + std::to_string(m) + " x " + std::to_string(want.rows) + " x " +
               std::to_string(want.cols));
  const size_t stride = want.cols + 3;
  const std::vector<float> x = RandomRow(m * stride + 1, rng), bias = RandomRow(want.rows, rng),
                           scale = RandomRow(want.rows, rng);
  std::vector<float> y(m * want.rows + 1, -7.0f), again(y);
  const RowsView from{FormatId::kF32, x.data() + 1, m, want.cols, ptrdiff_t(4 * stride)};
  Matmul(from, w, {FormatId::kF32, y.data(), m, want.rows, ptrdiff_t(4 * want.rows)}, Compute::kExact,
         {scale.data(), bias.data()});
  EXPECT_EQ(y.back(), -7.0f);
  for (size_t i = 0; i < m; ++i)
    for (size_t j = 0; j < want.rows; ++j) {
      double sum = bias[j], size = std::fabs(bias[j]);
      for (size_t c = 0; c < want.cols; ++c) {
        const double term = want.w[j * want.cols + c] * double(x[1 + i * stride + c]) * double(scale[j]);
        sum += term, size += std::fabs(term);
      }
      ASSERT_NEAR(y[i * want.rows + j], sum, tolerance * size + 1e-6) << "row " << i << ", column " << j;
    }
  SetNumThreads(1);
  Matmul(from, w, {FormatId::kF32, again.data(), m, want.rows, ptrdiff_t(4 * want.rows)}, Compute::kExact,
         {scale.data(), bias.data()});
  SetNumThreads(0);
  EXPECT_EQ(y, again);
}

TEST(FloatProducts, PlainNumbersOnEveryTarget) {
  ForEachTarget([] {
    std::mt19937 rng(3);
    for (const FormatId type : {FormatId::kF32, FormatId::kF16, FormatId::kBF16})
      for (const auto& [m, n, k] : {std::array<size_t, 3>{0, 3, 5},
                                    {1, 1, 1},
                                    {1, 37, 517},
                                    {2, 19, 64},
                                    {4, 5, 1030},
                                    {7, 37, 33},
                                    {13, 66, 1100},
                                    {101, 70, 523}}) {
        Matrix want{n, k, std::vector<double>(n * k)};
        std::vector<uint8_t> bytes(n * k * 4 + 1);
        uint8_t* const data = bytes.data() + 1;  // as in a mapped file, anywhere
        for (size_t i = 0; i < n * k; ++i) {
          const float v = std::ldexp(float(int(rng() % 2001) - 1000), -8);  // 10 bits; bf16 keeps 8 of them
          const uint16_t half = type == FormatId::kF16 ? F16FromF32(v) : BF16FromF32(v);
          uint32_t wide = uint32_t{half} << 16;
          float kept = v;
          if (type == FormatId::kBF16) memcpy(&kept, &wide, 4);
          want.w[i] = kept;
          if (type == FormatId::kF32) memcpy(data + 4 * i, &v, 4);
          else memcpy(data + 2 * i, &half, 2);
        }
        CheckFloats(ViewNumbers({type, data, n, k}), want, m, rng);
      }
  });
}

TEST(FloatProducts, RowsDoNotDependOnTheOthers) {
  std::mt19937 rng(4);
  const size_t n = 70, k = 1500, m = 40;
  const std::vector<float> w = RandomRow(n * k, rng), x = RandomRow(m * k, rng);
  const Panel panel = ViewNumbers({FormatId::kF32, reinterpret_cast<const uint8_t*>(w.data()), n, k});
  std::vector<float> all(m * n), one(n);
  Matmul({FormatId::kF32, x.data(), m, k, ptrdiff_t(4 * k)}, panel,
         {FormatId::kF32, all.data(), m, n, ptrdiff_t(4 * n)}, Compute::kInt8);
  for (size_t i = 0; i < m; ++i) {
    Matmul({FormatId::kF32, &x[i * k], 1, k, 0}, panel, {FormatId::kF32, one.data(), 1, n, 0}, Compute::kExact);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), &all[i * n])) << i;
  }
}

// Which some processors multiply in pairs.
TEST(FloatProducts, Bf16TimesBf16OnEveryTarget) {
  ForEachTarget([] {
    std::mt19937 rng(14);
    const auto numbers = [&](size_t count, std::vector<double>* values) {
      std::vector<uint16_t> made(count);
      for (uint16_t& v : made) {
        v = BF16FromF32(std::ldexp(float(int(rng() % 255) - 127), int(rng() % 9) - 12));
        const uint32_t bits = uint32_t{v} << 16;
        float value;
        memcpy(&value, &bits, 4);
        values->push_back(value);
      }
      return made;
    };
    for (const auto& [m, n, k] : {std::array<size_t, 3>{1, 37, 517}, {3, 5, 31}, {30, 9, 64}, {101, 70, 2081}}) {
      std::vector<double> w_values, x_values;
      const std::vector<uint16_t> w = numbers(n * k, &w_values), x = numbers(m * k, &x_values);
      const Panel panel = ViewNumbers({FormatId::kBF16, reinterpret_cast<const uint8_t*>(w.data()), n, k});
      std::vector<float> y(m * n), one(n);
      Matmul({FormatId::kBF16, x.data(), m, k, ptrdiff_t(2 * k)}, panel,
             {FormatId::kF32, y.data(), m, n, ptrdiff_t(4 * n)}, Compute::kExact);
      for (size_t i = 0; i < m; ++i) {
        Matmul({FormatId::kBF16, &x[i * k], 1, k, 0}, panel, {FormatId::kF32, one.data(), 1, n, 0}, Compute::kExact);
        for (size_t j = 0; j < n; ++j) {
          double sum = 0, size = 0;
          for (size_t c = 0; c < k; ++c) {
            const double term = w_values[j * k + c] * x_values[i * k + c];
            sum += term, size += std::fabs(term);
          }
          ASSERT_NEAR(y[i * n + j], sum, 1e-6 * size) << m << " " << i << " " << j;
          ASSERT_EQ(y[i * n + j], one[j]) << "a row depends on the others";
        }
      }
    }
  });
}

TEST(FloatProducts, AqlmOnEveryTarget) {
  ForEachTarget([] {
    std::mt19937 rng(5);
    for (const auto& [bits, books] : {std::pair<int, size_t>{8, 2}, {16, 1}, {8, 1}}) {
      const size_t n = 21, k = 1304, vectors = k / 8, entries = size_t{1} << bits;
      std::vector<float> book(books * entries * 8), scale = RandomRow(n, rng);
      for (float& v : book) v = std::ldexp(float(int(rng() % 2001) - 1000), -9);  // f16 holds them
      std::vector<uint16_t> wide(n * vectors * books);
      for (uint16_t& c : wide) c = uint16_t(rng() % entries);
      const std::vector<uint8_t> narrow(wide.begin(), wide.end());
      const void* const codes = bits == 8 ? static_cast<const void*>(narrow.data()) : wide.data();
      const AqlmView q{codes, bits, books, book.data(), scale.data()};
      Matrix want{n, k, std::vector<double>(n * k)};
      for (size_t r = 0; r < n; ++r)
        for (size_t c = 0; c < k; ++c) {
          for (size_t b = 0; b < books; ++b)
            want.w[r * k + c] += double(book[(b * entries + wide[(r * vectors + c / 8) * books + b]) * 8 + c % 8]);
          want.w[r * k + c] *= double(scale[r]);
        }
      const Panel panel = RepackAqlm(q, n, k, "aqlm");
      for (const size_t m : {0, 1, 5, 14}) CheckFloats(panel, want, m, rng);
    }
  });
}

// Codes are bytes; zeros are whole numbers; columns belong to any groups, and have factors.
TEST(PreparedInputs, SortedColumnsOnEveryTarget) {
  Scheme s;
  s.name = "sorted";
  s.bits = 8, s.codes = 256, s.group = 32;
  s.zeros = Zero::kFloat;
  s.code.bits = 8;
  s.scale.cell = s.shift.cell = Cell::kF16;
  s.scale.bits = s.scale.word = s.shift.bits = s.shift.word = 16;
  CheckScheme(s);
  ForEachTarget([&] {
    for (const bool even : {true, false}) {
      std::mt19937 rng(6);
      const size_t n = 37, k = 224, groups = k / 32;
      std::vector<uint8_t> codes(n * k);
      for (uint8_t& c : codes) c = uint8_t(rng());
      std::vector<uint16_t> scale(n * groups), zero(n * groups);
      std::vector<int> zeros(n * groups);
      std::vector<float> scales(n * groups), factors = RandomRow(k, rng);
      for (size_t i = 0; i < zeros.size(); ++i) {
        zeros[i] = int(rng() % 256), zero[i] = F16FromF32(float(zeros[i]));
        scales[i] = std::ldexp(1 + float(rng() % 1024) / 1024, -6), scale[i] = F16FromF32(scales[i]);
      }
      std::vector<int32_t> of(k);
      for (size_t c = 0; c < k; ++c) of[c] = int32_t(even ? c / 32 : rng() % groups);
      std::shuffle(of.begin(), of.end(), rng);
      SchemeView q{&s, n, k, {}, nullptr};
      q.arrays[Part::kCode] = codes.data();
      q.arrays[Part::kScale] = reinterpret_cast<const uint8_t*>(scale.data());
      q.arrays[Part::kShift] = reinterpret_cast<const uint8_t*>(zero.data());
      Matrix want{n, k, std::vector<double>(n * k)};
      for (size_t r = 0; r < n; ++r)
        for (size_t c = 0; c < k; ++c) {
          const size_t g = r * groups + size_t(of[c]);
          want.w[r * k + c] = (codes[r * k + c] - zeros[g]) * double(scales[g]) * double(factors[c]);
        }
      const Panel panel = Repack(q, {of.data(), factors.data()}).panel;
      EXPECT_EQ(panel.inputs(), k);
      EXPECT_EQ(even, panel.cols == k);
      for (const size_t m : {0, 1, 3, 9, 40}) CheckFloats(panel, want, m, rng, 4e-6);
      of[5] = int32_t(groups);
      EXPECT_THROW(Repack(q, {of.data(), nullptr}), Error);
    }
  });
}

}  // namespace
}  // namespace edgequant
