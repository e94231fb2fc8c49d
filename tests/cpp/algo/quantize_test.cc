#include "algo/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "algo/importance.h"
#include "algo/tuning.h"
#include "core/threads.h"
#include "format/blocks.h"
#include "format/shape.h"

namespace edgequant {
namespace {

constexpr size_t kRows = 150, kCols = 512;

struct Matrix {
  std::vector<float> x;
  explicit Matrix(uint32_t seed) : x(kRows * kCols) {
    std::mt19937 random(seed);
    std::student_t_distribution<float> student(5);
    for (float& v : x) v = student(random) * 0.02f;
  }
  TensorView view() const { return {FormatId::kF32, reinterpret_cast<const uint8_t*>(x.data()), kRows, kCols}; }
};
std::vector<uint8_t> Quantized(const TensorView& w, FormatId to, const QuantizeOptions& options = {},
                               ErrorStats* stats = nullptr) {
  std::vector<uint8_t> out(w.rows * RowBytes(to, w.cols));
  Quantize(w, to, options, out.data(), stats);
  return out;
}
bool Same(const ErrorStats& a, const ErrorStats& b) { return memcmp(&a, &b, sizeof a) == 0; }

TEST(Quantize, SameBytesAndSumsAtAnyThreadCount) {
  const Matrix m(1);
  for (FormatId to : AllFormats()) {
    if (!CanQuantize(to)) continue;
    SetNumThreads(1);
    ErrorStats one_stats;
    const std::vector<uint8_t> one = Quantized(m.view(), to, {}, &one_stats);
    for (int threads : {2, 3, 7}) {
      SetNumThreads(threads);
      ErrorStats stats;
      EXPECT_EQ(Quantized(m.view(), to, {}, &stats), one) << NameOf(to);
      EXPECT_TRUE(Same(stats, one_stats)) << NameOf(to);
    }
  }
  SetNumThreads(0);
}

TEST(Quantize, MoreEffortIsNotWorse) {
  const Matrix m(2);
  for (FormatId to : AllFormats()) {
    if (!CanQuantize(to)) continue;
    double error[3];
    for (int effort = 0; effort < 3; ++effort) {
      QuantizeOptions options;
      options.effort = Effort(effort);
      options.objective = Objective::kPlain;
      ErrorStats stats;
      Quantized(m.view(), to, options, &stats);
      error[effort] = stats.squared_error;
    }
    EXPECT_LE(error[1], error[0] * 1.0005) << NameOf(to);
    EXPECT_LE(error[2], error[1] * 1.0005) << NameOf(to);
  }
}

TEST(Quantize, ErrorsNameThePlace) {
  Matrix m(3);
  m.x[100 * kCols + 17] = NAN;
  try {
    Quantized(m.view(), FormatId::kQ4_K);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "NaN at row 100, column 17");
  }
  QuantizeOptions options;
  options.first_row = 1000;
  try {
    Quantized(m.view(), FormatId::kF16, options);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "NaN at row 1100, column 17");
  }
  EXPECT_THROW(Quantized({FormatId::kF32, nullptr, 1, 100}, FormatId::kQ4_0), Error);
  EXPECT_TRUE(Quantized({FormatId::kF32, nullptr, 0, 256}, FormatId::kQ4_K).empty());
}

TEST(Quantize, ReadsFloatsAtAnyAddress) {
  const Matrix m(4);
  std::vector<uint8_t> moved(m.x.size() * 4 + 1);
  memcpy(moved.data() + 1, m.x.data(), m.x.size() * 4);
  EXPECT_EQ(Quantized({FormatId::kF32, moved.data() + 1, kRows, kCols}, FormatId::kQ6_K),
            Quantized(m.view(), FormatId::kQ6_K));
}

TEST(Importance, IsScaledPerBlock) {
  std::vector<float> importance(512, 0.0f);
  importance[3] = 4e30f;
  importance[5] = 1e30f;
  const std::vector<float> p = PrepareImportance(importance.data(), 512, ggml::Q4_K);
  EXPECT_EQ(p[3], 1);
  EXPECT_EQ(p[5], 0.25f);
  EXPECT_EQ(p[4], 0);          // beside important ones: nothing
  EXPECT_GT(p[32], 0);         // a group of the same block without any: a trace
  EXPECT_LT(p[32], 1e-5f);
  EXPECT_EQ(p[256], 1);        // a block without any: all alike
  EXPECT_TRUE(PrepareImportance(nullptr, 512, ggml::Q4_K).empty());
  importance[9] = -1;
  EXPECT_THROW(PrepareImportance(importance.data(), 512, ggml::Q4_K), Error);
}

TEST(Tuning, IsWhatTheKernelsExpect) {
  for (FormatId to : AllFormats()) {
    if (!CanSearch(to)) continue;
    for (int effort = 0; effort < 3; ++effort)
      for (bool importance : {false, true}) {
        const Tuning t = TuningOf(to, Effort(effort), WeightingOf(to, Objective::kGgml, importance));
        EXPECT_EQ(t.starts % 2, 0);
        EXPECT_LE(t.starts, kMaxStarts);
        EXPECT_EQ(t.candidates % 16, 0);
        EXPECT_LE(t.candidates, kMaxCandidates);
        EXPECT_EQ(t.candidates > 0, ShapeOf(BlockOf(to)).two_level);
        for (int k = 0; k < t.candidates; ++k) EXPECT_NE(t.candidate[k], 0);
      }
  }
}

}  // namespace
}  // namespace edgequant
