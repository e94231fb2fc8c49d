// Decoding and searching run-time formats on every target, against plain loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/bits.h"
#include "kernels/cpu/codebook.h"
#include "kernels/cpu/scheme_decode.h"
#include "kernels/cpu/scheme_search.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class SchemesOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

constexpr size_t kCols = 200, kGroup = 24;  // the last group has 8 weights

std::vector<float> Gaussian(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

Scheme WholeNumbers(int bits, Zero zeros) {
  Scheme s;
  s.bits = bits;
  s.codes = 1 << bits;
  s.group = int(kGroup);
  s.zero = zeros == Zero::kNone ? float(1 << (bits - 1)) : 0;
  s.zeros = zeros;
  s.scale.cell = zeros == Zero::kFloat ? Cell::kF32 : Cell::kF16;
  s.scale.bits = CellBits(s.scale.cell);
  s.shift.cell = zeros == Zero::kInteger ? Cell::kInteger : Cell::kF16;
  s.shift.bits = zeros == Zero::kInteger ? bits : 16;
  return s;
}
Scheme Table(int bits) {
  Scheme s = WholeNumbers(bits, Zero::kNone);
  s.values = Values::kTable;
  s.zero = 0;
  for (int k = 0; k < s.codes; ++k)
    s.table.push_back(std::sinh(3 * (float(k * 7 % s.codes) / float(s.codes - 1) - 0.45f)));
  return s;
}
Scheme Minifloat(int bits, int exponent_bits, int bias, float highest) {
  Scheme s = WholeNumbers(bits, Zero::kNone);
  s.values = Values::kMinifloat;
  s.zero = 0;
  s.exponent_bits = exponent_bits;
  s.exponent_bias = bias;
  s.highest = highest;
  return s;
}
std::vector<Scheme> Several() {
  std::vector<Scheme> all;
  for (int bits = 1; bits <= 8; ++bits) all.push_back(Table(bits));
  for (int bits : {1, 2, 3, 4, 5, 8})
    for (Zero zeros : {Zero::kNone, Zero::kInteger, Zero::kFloat, Zero::kMinimum})
      all.push_back(WholeNumbers(bits, zeros));
  all.push_back(Minifloat(8, 4, 7, 448));
  all.push_back(Minifloat(8, 5, 15, 57344));
  all.push_back(Minifloat(4, 2, 1, 6));
  all.push_back(Minifloat(6, 3, 3, 28));
  return all;
}

SchemeTuning SomeTuning(const Scheme& s) {
  SchemeTuning t;
  t.starts = 8;
  t.rounds = 2;
  for (int k = 0; k < t.starts; ++k) {
    t.start[k][0] = s.zeros == Zero::kNone ? (k % 2 ? 1.0f : -1.0f) : float(k % 3) / 2 - 0.4f;
    t.start[k][1] = s.zeros == Zero::kNone ? 1.1f - float(k) / 16 : float(k % 4) / 4 - 0.3f;
  }
  return t;
}

// `n` codes that stand for numbers.
std::vector<uint8_t> RandomCodes(const Scheme& s, size_t n, std::mt19937& random) {
  std::vector<uint8_t> codes(n);
  for (uint8_t& c : codes) {
    do c = uint8_t(random() % unsigned(s.codes));
    while (s.values == Values::kMinifloat && !(std::abs(MinifloatValue(s, c)) <= s.highest));
  }
  return codes;
}

DecodeRow RowOf(const Scheme& s, const CodeValues& values, const std::vector<uint8_t>& codes,
                const std::vector<float>& scale, const std::vector<float>& shift, size_t group) {
  DecodeRow row;
  row.values = &values;
  row.zeros = s.zeros;
  row.code = codes.data();
  row.scale = scale.data();
  row.shift = shift.data();
  row.cols = codes.size();
  row.group = group;
  return row;
}

// One weight, from the description.
float Weight(const Scheme& s, int code, float scale, float shift) {
  float v = s.values == Values::kAffine  ? float(code)
            : s.values == Values::kTable ? s.table[size_t(code)]
                                         : MinifloatValue(s, code);
  if (s.zeros == Zero::kMinimum) return (v - s.zero) * scale + shift;
  return (v - (s.zeros == Zero::kNone ? s.zero : shift)) * scale;
}

TEST_P(SchemesOnEachTarget, DecodesAsTheDescriptionSays) {
  std::mt19937 random(1);
  const size_t groups = (kCols + kGroup - 1) / kGroup;
  for (const Scheme& s : Several()) {
    const CodeValues values = ValuesOf(s, s.table.data());
    const std::vector<uint8_t> codes = RandomCodes(s, kCols, random);
    const std::vector<float> scale = Gaussian(groups, 2), shift = Gaussian(groups, 3);
    std::vector<float> out(kCols + 1, 7.0f);
    DecodeCodes(RowOf(s, values, codes, scale, shift, kGroup), out.data());
    for (size_t i = 0; i < kCols; ++i)
      ASSERT_EQ(out[i], Weight(s, codes[i], scale[i / kGroup], shift[i / kGroup])) << s.bits << " bits, weight " << i;
    EXPECT_EQ(out[kCols], 7.0f);
  }
}

// The same weights, bit for bit, from codes as bytes and from codes where they lie: streams of bits in both orders with
// and without an offset, base-3 digits; blocks with something between them, up to the last byte that may be read.
TEST_P(SchemesOnEachTarget, DecodesPackedCodesLikeBytes) {
  std::mt19937 random(2);
  std::vector<Scheme> all = Several();
  for (Zero zeros : {Zero::kNone, Zero::kMinimum}) {
    Scheme digits = WholeNumbers(2, zeros);
    digits.codes = 3;
    digits.zero = 1;
    all.push_back(digits);
  }
  for (const Scheme& s : all)
    for (int kind = 0; kind < 4; ++kind) {
      const size_t group = kind % 2 ? 48 : 16, run = kind % 2 ? 240 : 96, runs = 3, cols = run * runs,
                   between = size_t(kind);
      Plane plane;
      plane.bits = s.bits;
      plane.trits = s.codes == 3;
      plane.high_first = kind == 2 && (s.bits & (s.bits - 1)) == 0 && !plane.trits;
      plane.offset = kind == 3 && !plane.trits ? 1 << (s.bits - 1) : 0;
      const std::vector<uint8_t> codes = RandomCodes(s, cols, random);
      const size_t bytes = plane.trits ? BytesOfTrits(run) : BytesOfBits(run, s.bits), step = bytes + between;
      std::vector<uint8_t> packed(runs * step - between);
      for (size_t b = 0; b < runs; ++b) {
        if (plane.trits) PackTrits(&codes[b * run], run, &packed[b * step]);
        else PackBits(&codes[b * run], run, s.bits, plane.high_first, plane.offset, &packed[b * step]);
      }
      const CodeValues values = ValuesOf(s, s.table.data());
      const std::vector<float> scale = Gaussian(cols / group, 2), shift = Gaussian(cols / group, 3);
      DecodeRow row = RowOf(s, values, codes, scale, shift, group);
      std::vector<float> want(cols), found(cols + 1, 7.0f);
      DecodeCodes(row, want.data());
      const CodePattern pattern = PatternOf(plane);
      row.code = nullptr;
      row.packed = {&pattern, packed.data(), packed.data() + packed.size(), run, step};
      DecodeCodes(row, found.data());
      for (size_t i = 0; i < cols; ++i)
        ASSERT_EQ(found[i], want[i]) << s.bits << " bits, values " << int(s.values) << ", kind " << kind << ", weight "
                                     << i;
      EXPECT_EQ(found[cols], 7.0f);
    }
}

TEST_P(SchemesOnEachTarget, ReadsNumbersAndScaledIntegers) {
  std::mt19937 random(3);
  const size_t step = 21, runs = 70;
  std::vector<uint8_t> bytes(step * runs);
  for (uint8_t& b : bytes) b = uint8_t(random());
  for (Cell cell : {Cell::kF32, Cell::kF16, Cell::kBF16, Cell::kE8M0, Cell::kE4M3})
    for (size_t run : {1, 2, 5}) {
      std::vector<float> out(runs * run + 1, 7.0f);
      ReadCells(cell, bytes.data() + 1, step, runs, run, out.data());
      for (size_t i = 0; i < runs * run; ++i) {
        const float want = ReadCell(cell, &bytes[1 + i / run * step + i % run * size_t(CellBits(cell)) / 8]);
        ASSERT_EQ(memcmp(&out[i], &want, std::isnan(want) ? 0 : 4), 0) << i;
        ASSERT_EQ(std::isnan(out[i]), std::isnan(want));
      }
      EXPECT_EQ(out[runs * run], 7.0f);
    }
  const std::vector<float> super = Gaussian(runs, 4);
  for (int bits = 1; bits <= 8; ++bits)
    for (size_t n : {3, 8, 16, 20}) {
      Plane plane;
      plane.bits = bits;
      std::vector<uint8_t> integers(n);
      std::vector<float> out(runs * n + 1, 7.0f);
      ReadScaledIntegers(PatternOf(plane), bytes.data(), bytes.data() + bytes.size(), step, runs, n, 5, super.data(),
                         out.data());
      for (size_t b = 0; b < runs; ++b) {
        UnpackBits(&bytes[b * step], n, bits, false, 0, integers.data());
        for (size_t i = 0; i < n; ++i)
          ASSERT_EQ(out[b * n + i], (float(integers[i]) - 5) * super[b]) << bits << " bits";
      }
      EXPECT_EQ(out[runs * n], 7.0f);
    }
}

// Codes are the nearest, the error is not above that of the rule, and every target gets as far.
TEST_P(SchemesOnEachTarget, SearchesAsWellAsTheBestTarget) {
  const size_t rows = 5, groups = (kCols + kGroup - 1) / kGroup;
  const std::vector<float> x = Gaussian(rows * kCols, 4);
  std::vector<float> importance = Gaussian(kCols, 5);
  for (float& v : importance) v *= v;
  for (const Scheme& s : Several()) {
    const CodeValues values = ValuesOf(s, s.table.data());
    const SchemeTuning tuning = SomeTuning(s);
    SchemeSearch search;
    search.scheme = &s;
    search.values = &values;
    search.tuning = &tuning;
    search.scale_cell = s.scale.cell;
    const auto error = [&](const float* weight, bool rule) {
      std::vector<float> scale(rows * groups), shift(rows * groups);
      if (!rule) SearchScales(search, x.data(), rows, kCols, weight, scale.data(), shift.data());
      double sum = 0;
      for (size_t r = 0; r < rows; ++r)
        for (size_t g = 0; g < groups; ++g) {
          const size_t first = g * kGroup, n = std::min(kGroup, kCols - first);
          const float* const at = &x[r * kCols + first];
          if (rule) {
            const GroupScale found = ScaleByRule(search, RangeOf(at, n));
            scale[r * groups + g] = found.scale;
            shift[r * groups + g] = found.shift;
          }
          uint8_t codes[kGroup];
          ChooseCodes(search, at, n, scale[r * groups + g], shift[r * groups + g], codes);
          for (size_t i = 0; i < n; ++i) {
            const double gap = std::abs(at[i] - Weight(s, codes[i], scale[r * groups + g], shift[r * groups + g]));
            for (int c = 0; c < s.codes; ++c) {
              const float other = Weight(s, c, scale[r * groups + g], shift[r * groups + g]);
              if (s.values == Values::kMinifloat && !(std::abs(MinifloatValue(s, c)) <= s.highest)) continue;
              EXPECT_LE(gap, std::abs(at[i] - other) * 1.0001 + 1e-5) << s.bits << " bits, code " << int(codes[i]);
            }
            sum += (weight ? double(weight[first + i]) : 1) * gap * gap;
          }
        }
      return sum;
    };
    for (const float* weight : {static_cast<const float*>(nullptr), static_cast<const float*>(importance.data())}) {
      const double found = error(weight, false);
      EXPECT_LE(found, error(weight, true) * 1.0001);
      UseKernelTarget("");
      const double best = error(weight, false);
      UseKernelTarget(GetParam());
      EXPECT_NEAR(found / best, 1, 0.03) << s.bits << " bits, values " << int(s.values) << ", zeros " << int(s.zeros);
    }
  }
}

TEST_P(SchemesOnEachTarget, OneLargeGroupIsSearchedLikeSmallOnes) {
  const std::vector<float> x = Gaussian(1000, 6);
  for (Zero zeros : {Zero::kNone, Zero::kInteger, Zero::kMinimum}) {
    Scheme s = WholeNumbers(4, zeros);
    s.group = 1000;
    const CodeValues values = ValuesOf(s, nullptr);
    const SchemeTuning tuning = SomeTuning(s);
    SchemeSearch search;
    search.scheme = &s;
    search.values = &values;
    search.tuning = &tuning;
    float in_rows[2], at_once[2];
    SearchScales(search, x.data(), 1, 1000, nullptr, &in_rows[0], &in_rows[1]);
    SearchGroup(search, x.data(), nullptr, 1000, &at_once[0], &at_once[1]);
    EXPECT_NEAR(in_rows[0], at_once[0], 2e-3f * std::abs(in_rows[0]));
    EXPECT_NEAR(in_rows[1], at_once[1], 5e-3f * std::abs(in_rows[1]) + 1e-3f);
  }
}

TEST_P(SchemesOnEachTarget, FindsTheNearestRows) {
  const size_t n = 77;
  for (int dim : {2, 4, 8}) {
    const std::vector<float> x = Gaussian(n * size_t(dim), 7), rows = Gaussian(200 * size_t(dim), 8);
    std::vector<float> w = Gaussian(n * size_t(dim), 9);
    for (float& v : w) v *= v;
    for (const float* weight : {static_cast<const float*>(nullptr), static_cast<const float*>(w.data())}) {
      std::vector<uint16_t> codes(n + 1, 250);
      NearestRows(x.data(), weight, n, dim, rows.data(), 200, codes.data());
      EXPECT_EQ(codes[n], 250);
      for (size_t i = 0; i < n; ++i) {
        const auto distance = [&](size_t row) {
          double sum = 0;
          for (size_t d = 0; d < size_t(dim); ++d) {
            const double gap = x[i * size_t(dim) + d] - rows[row * size_t(dim) + d];
            sum += (weight ? double(weight[i * size_t(dim) + d]) : 1) * gap * gap;
          }
          return sum;
        };
        double least = INFINITY;
        for (size_t row = 0; row < 200; ++row) least = std::min(least, distance(row));
        EXPECT_LE(distance(codes[i]), least + 1e-4);
      }
    }
  }
}

// Trials in whole numbers find rows that are hardly farther than the nearest, and how far; also of more than 256 rows.
TEST_P(SchemesOnEachTarget, FindsNearlyTheNearestRows) {
  const size_t n = 77;
  for (int dim : {2, 4, 8})
    for (size_t count : {3, 256, 300, 700}) {
      const size_t d = size_t(dim);
      const std::vector<float> x = Gaussian(n * d, 7), rows = Gaussian(count * d, 8);
      const RoughBook book(rows.data(), count, dim);
      ASSERT_TRUE(book.usable);
      std::vector<uint16_t> nearest(n), codes(n + 1, 9999);
      std::vector<float> found(n);
      NearestRows(x.data(), nullptr, n, dim, rows.data(), count, nearest.data());
      NearlyNearestRows(book, x.data(), n, codes.data(), found.data());
      EXPECT_EQ(codes[n], 9999);
      for (size_t i = 0; i < n; ++i) {
        const auto distance = [&](size_t row) {
          double sum = 0;
          for (size_t k = 0; k < d; ++k)
            sum += double(rows[row * d + k]) * (0.5 * double(rows[row * d + k]) - double(x[i * d + k]));
          return sum;
        };
        ASSERT_LT(codes[i], count);
        EXPECT_NEAR(distance(codes[i]), distance(nearest[i]), 0.01 * dim) << dim << ", " << count;
        EXPECT_NEAR(found[i], distance(codes[i]), 0.01 * dim) << dim << ", " << count;
      }
    }
  EXPECT_FALSE(RoughBook(std::vector<float>(8, 1e-20f).data(), 2, 4).usable);
}

// The sums are those of the codes that ChooseCodes gives.
TEST_P(SchemesOnEachTarget, SumsWhatTheBestCodesLeave) {
  const Scheme s = WholeNumbers(4, Zero::kMinimum);
  const CodeValues values = ValuesOf(s, nullptr);
  const SchemeTuning tuning = SomeTuning(s);
  SchemeSearch search;
  search.scheme = &s;
  search.values = &values;
  search.tuning = &tuning;
  const size_t rows = 3, groups = s.GroupsOf(kCols);
  const std::vector<float> x = Gaussian(rows * kCols, 3);
  std::vector<float> importance = Gaussian(kCols, 4), scale(rows * groups), shift(rows * groups);
  for (float& v : importance) v = std::abs(v);
  for (size_t g = 0; g < scale.size(); ++g) scale[g] = 0.2f + 0.01f * float(g), shift[g] = -1.5f - 0.02f * float(g);
  std::vector<GroupSums> sums(rows * groups);
  SumGroups(search, x.data(), rows, kCols, importance.data(), scale.data(), shift.data(), sums.data());
  for (size_t r = 0; r < rows; ++r)
    for (size_t g = 0; g < groups; ++g) {
      const size_t first = g * kGroup, n = std::min(kGroup, kCols - first), at = r * groups + g;
      std::vector<uint8_t> codes(n);
      ChooseCodes(search, &x[r * kCols + first], n, scale[at], shift[at], codes.data());
      double w = 0, wx = 0, l = 0, ll = 0, xl = 0;
      for (size_t i = 0; i < n; ++i) {
        const double a = importance[first + i], q = codes[i], v = x[r * kCols + first + i];
        w += a, wx += a * v, l += a * q, ll += a * q * q, xl += a * q * v;
      }
      const double expected[] = {w, wx, l, ll, xl},
                   found[] = {sums[at].w, sums[at].x, sums[at].l, sums[at].ll, sums[at].xl};
      for (int k = 0; k < 5; ++k) EXPECT_NEAR(found[k], expected[k], 1e-4 * std::abs(expected[k]) + 1e-4) << k;
    }
}

TEST_P(SchemesOnEachTarget, FindsTheEndThatSuitsWholeNumbers) {
  std::vector<float> ends(16);
  for (size_t k = 0; k < ends.size(); ++k) ends[k] = 40 + float(k);
  const float v[] = {53, -7, 20, 31, 12};  // whole numbers if the first of them is code 53
  std::vector<float> scaled;
  for (float number : v) scaled.push_back(number * 0.031f);
  EXPECT_EQ(BestEnd(scaled.data(), scaled.size(), 1 / scaled[0], ends.data(), ends.size(), -64, 63), 13u);
  const float most[] = {1, -1};  // clipped below
  EXPECT_EQ(BestEnd(most, 2, 1, ends.data(), ends.size(), 0, 63), 0u);
}

INSTANTIATE_TEST_SUITE_P(Targets, SchemesOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace edgequant
