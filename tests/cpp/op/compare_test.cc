#include "op/compare.h"

#include <gtest/gtest.h>

#include "core/threads.h"
#include "format/blocks.h"
#include "format/reference.h"
#include "op/target.h"

namespace edgequant {
namespace {

constexpr size_t kRows = 201, kCols = 2304;  // rows longer than a tile, not a multiple of it

std::vector<float> Gaussian(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}
TensorView ViewOf(const std::vector<float>& x, size_t rows, size_t cols) {
  return {FormatId::kF32, reinterpret_cast<const uint8_t*>(x.data()), rows, cols};
}

// Q8_0 blocks with a scale of 2^-5.
std::vector<uint8_t> SomeQ8(size_t weights) {
  std::vector<uint8_t> q = RandomBlocks(FormatId::kQ8_0, weights / 32, 9);
  for (size_t b = 0; b < weights / 32; ++b) q[b * 34] = 0, q[b * 34 + 1] = 0x28;
  return q;
}

TEST(Compare, AddsUpWhatTheLoopAddsUp) {
  const std::vector<float> a = Gaussian(kRows * kCols, 1);
  const std::vector<uint8_t> q = SomeQ8(kRows * kCols);
  std::vector<float> w = Gaussian(kCols, 2), b(kRows * kCols);
  for (float& v : w) v *= v;
  for (size_t k = 0; k < b.size(); k += 32) reference::DecodeBlock(FormatId::kQ8_0, &q[k / 32 * 34], &b[k]);
  ErrorStats want;
  for (size_t k = 0; k < a.size(); ++k) {
    const double x = a[k], y = b[k], d = x - y, i = w[k % kCols];
    want.squared_error += d * d, want.squared_norm += x * x, want.squared_norm_b += y * y, want.dot += x * y;
    want.weighted_error += i * d * d, want.weighted_norm += i * x * x;
    want.max_error = std::max(want.max_error, std::abs(d));
  }
  for (const std::string& target : SimdTargets()) {
    SCOPED_TRACE(target);
    UseSimdTarget(target);
    const TensorView va = ViewOf(a, kRows, kCols), vb{FormatId::kQ8_0, q.data(), kRows, kCols};
    const ErrorStats s = Compare(va, vb, w.data()), plain = Compare(va, vb);
    EXPECT_EQ(s.count, double(a.size()));
    EXPECT_EQ(s.max_error, want.max_error);
    EXPECT_NEAR(s.squared_error / want.squared_error, 1, 1e-12);
    EXPECT_NEAR(s.squared_norm / want.squared_norm, 1, 1e-12);
    EXPECT_NEAR(s.squared_norm_b / want.squared_norm_b, 1, 1e-12);
    EXPECT_NEAR(s.dot, want.dot, 1e-9 * want.squared_norm_b);
    EXPECT_NEAR(s.weighted_error / want.weighted_error, 1, 1e-12);
    EXPECT_NEAR(s.weighted_norm / want.weighted_norm, 1, 1e-12);
    EXPECT_EQ(plain.weighted_error, plain.squared_error);
    EXPECT_EQ(plain.weighted_norm, plain.squared_norm);
    EXPECT_EQ(plain.squared_error, s.squared_error);
  }
  UseSimdTarget("");
}

TEST(Compare, IsTheSameAtAnyThreadCount) {
  const std::vector<float> a = Gaussian(kRows * kCols, 3), b = Gaussian(kRows * kCols, 4);
  ErrorStats first;
  for (int threads : {1, 2, 5}) {
    SetNumThreads(threads);
    const ErrorStats s = Compare(ViewOf(a, kRows, kCols), ViewOf(b, kRows, kCols));
    if (threads == 1) first = s;
    EXPECT_EQ(s.squared_error, first.squared_error);
    EXPECT_EQ(s.dot, first.dot);
    EXPECT_EQ(s.max_error, first.max_error);
  }
  SetNumThreads(0);
}

TEST(Compare, ShowsNaNAndInfinity) {
  std::vector<float> a(96, 1.0f), b(96, 1.0f);
  b[70] = std::nanf("");
  EXPECT_TRUE(std::isnan(Compare(ViewOf(a, 1, 96), ViewOf(b, 1, 96)).squared_error));
  EXPECT_TRUE(std::isnan(Compare(ViewOf(a, 1, 96), ViewOf(b, 1, 96)).max_error));
  b[70] = INFINITY;
  EXPECT_EQ(Compare(ViewOf(a, 1, 96), ViewOf(b, 1, 96)).max_error, INFINITY);
}

TEST(Compare, RefusesOtherShapes) {
  const std::vector<float> a(96);
  EXPECT_THROW(Compare(ViewOf(a, 1, 96), ViewOf(a, 2, 48)), Error);
  EXPECT_THROW(Compare(ViewOf(a, 2, 48), {FormatId::kQ8_0, reinterpret_cast<const uint8_t*>(a.data()), 2, 48}), Error);
  EXPECT_EQ(Compare(ViewOf(a, 0, 96), ViewOf(a, 0, 96)).count, 0);
}

}  // namespace
}  // namespace edgequant
