// The rules of the reference encoders on every target, against plain loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/scheme_search.h"
#include "kernels/cpu/targets.h"

namespace edgequant {
namespace {

class RulesOnEachTarget : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseKernelTarget(GetParam())); }
  void TearDown() override { UseKernelTarget(""); }
};

struct Twin { float scale, shift, by, minus, plus; };

float Whole(Rounding r, float v) {
  return r == Rounding::kHalfEven   ? std::nearbyint(v)
         : r == Rounding::kHalfAway ? std::trunc(v + std::copysign(0.49999997f, v))
                                    : std::floor(v + 0.5f);
}

// One group by the rule of the format, step by step.
Twin RuleOf(const Scheme& s, const CodeValues& v, const float* x, size_t n) {
  float low = x[0], high = x[0], extreme = x[0];
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
    sum += double(std::abs(x[i]));
  }
  const float most = std::abs(extreme), last = float(v.codes - 1);
  float scale = 0, shift = 0;
  if (s.rule == Rule::kExtreme) scale = extreme / v.low;
  if (s.rule == Rule::kAbsMax) scale = most / (s.rule_reach > 0 ? s.rule_reach : std::max(v.high, -v.low));
  if (s.rule == Rule::kAbsMean) scale = float(sum / double(n));
  if (s.rule == Rule::kPowerOfTwo) scale = most > 0 ? std::ldexp(1.0f, std::ilogb(most) - std::ilogb(v.high)) : 0;
  if (s.rule == Rule::kRangeZero) {
    const float bottom = std::min(low, 0.0f);
    scale = (std::max(high, 0.0f) - bottom) / last;
    shift = scale > 0 ? -bottom / scale : 0;
  }
  if (s.rule == Rule::kEdge) {
    scale = std::max((high - low) / last, 1e-7f);
    const bool below = std::abs(low) > std::abs(high);
    if (!below) scale = -scale;
    const float edge = below ? low : high, steps = std::nearbyint(edge / scale);
    if (steps != 0) scale = edge / steps, shift = edge;
  }
  if (s.rule == Rule::kRange) scale = (high - low) / last, shift = low + s.zero * scale;
  const float stored = AsStored(s.scale.cell, s.negative_scale ? scale : std::max(scale, 0.0f));
  float stored_shift = 0;
  if (s.zeros == Zero::kInteger)
    stored_shift = shift = std::clamp(Whole(s.rounding, shift), 0.0f, float((1 << s.shift.bits) - 1));
  if (s.zeros == Zero::kMinimum) stored_shift = AsStored(s.shift.cell, shift);
  const float by = s.rounded_scale ? stored : scale, at = s.rounded_scale ? stored_shift : shift;
  return {stored, stored_shift, by, s.zeros == Zero::kMinimum ? at : 0, s.zeros == Zero::kInteger ? at : s.zero};
}

int CodeOf(const Scheme& s, const CodeValues& v, const Twin& t, float x) {
  const float inverse = std::abs(t.by) > 1e-37f ? 1 / t.by : 0;
  float u = (x - t.minus) * inverse;
  if (s.divide && inverse != 0) u = (x - t.minus) / t.by;
  if (v.kind == Values::kAffine) return int(std::clamp(Whole(s.rounding, u + t.plus), 0.0f, float(v.codes - 1)));
  int best = 0;  // of sorted values; halves go down in tables, to even codes in small floats
  for (int k = 1; k < 256 && v.sorted[k] > v.sorted[k - 1]; ++k) {
    const float middle = v.sorted[k - 1] / 2 + v.sorted[k] / 2;
    const bool to_even = v.kind == Values::kMinifloat && v.code[k] % 2 == 0;
    if (u > middle || (u == middle && to_even)) best = k;
  }
  if (v.kind == Values::kMinifloat && v.sorted[best] == 0) return std::signbit(u) ? 1 << (v.bits - 1) : 0;
  return v.code[best];
}

Scheme Rules(Rule rule, int bits, Zero zeros) {
  Scheme s;
  s.rule = rule;
  s.bits = bits;
  s.codes = 1 << bits;
  s.zeros = zeros;
  s.zero = zeros == Zero::kNone ? float(1 << (bits - 1)) : 0;
  s.scale.cell = Cell::kF16;
  s.scale.bits = 16;
  s.shift.cell = zeros == Zero::kInteger ? Cell::kInteger : Cell::kF16;
  s.shift.bits = zeros == Zero::kInteger ? bits : 16;
  s.negative_scale = rule == Rule::kExtreme || rule == Rule::kEdge;
  return s;
}
Scheme SmallFloats(Rule rule, int bits, int exponent_bits, int bias, float highest, Cell cell) {
  Scheme s = Rules(rule, bits, Zero::kNone);
  s.values = Values::kMinifloat;
  s.zero = 0;
  s.exponent_bits = exponent_bits;
  s.exponent_bias = bias;
  s.highest = highest;
  s.scale.cell = cell;
  return s;
}

std::vector<Scheme> Several() {
  std::vector<Scheme> all;
  for (const int bits : {2, 4, 8}) {
    all.push_back(Rules(Rule::kExtreme, bits, Zero::kNone));
    all.push_back(Rules(Rule::kAbsMax, bits, Zero::kNone));
    all.push_back(Rules(Rule::kAbsMean, bits, Zero::kNone));
    all.push_back(Rules(Rule::kRangeZero, bits, Zero::kInteger));
    all.push_back(Rules(Rule::kEdge, bits, Zero::kMinimum));
    all.push_back(Rules(Rule::kRange, bits, Zero::kMinimum));
  }
  all.push_back(SmallFloats(Rule::kAbsMax, 8, 4, 7, 448, Cell::kF32));
  all.push_back(SmallFloats(Rule::kAbsMax, 8, 5, 15, 57344, Cell::kE8M0));
  Scheme table = Rules(Rule::kPowerOfTwo, 4, Zero::kNone);
  table.values = Values::kTable;
  table.zero = 0;
  table.scale.cell = Cell::kE8M0;
  for (const float sign : {1.0f, -1.0f})
    for (const float v : {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f}) table.table.push_back(sign * v);
  all.push_back(table);
  table.rule = Rule::kAbsMax;
  table.scale.cell = Cell::kE4M3;
  all.push_back(table);
  return all;
}

// Groups of all kinds: normal, of one sign, zeros of both signs, ties, tiny and large ones.
std::vector<float> Weights(size_t cols, size_t group, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(cols);
  for (size_t i = 0; i < cols; ++i) {
    const size_t kind = i / group % 9;
    const float v = normal(random);
    x[i] = kind == 0   ? std::abs(v) + 0.1f
           : kind == 1 ? -std::abs(v) - 0.1f
           : kind == 2 ? (i % 2 ? 0.0f : -0.0f)
           : kind == 3 ? float(int(random() % 33) - 16) / 4
           : kind == 4 ? v * 1e-41f
           : kind == 5 ? v * 1000
           : kind == 6 ? (i % 5 ? 0.0f : v)
                       : v * 0.02f;
  }
  return x;
}

TEST_P(RulesOnEachTarget, RoundsEachGroupLikeItsReference) {
  for (const Scheme& base : Several())
    for (int kind = 0; kind < 12; ++kind) {
      Scheme s = base;
      s.group = kind < 10 ? std::array{16, 32, 41, 64}[size_t(kind + kind / 4) % 4] : kind < 11 ? 2112 : 2101;
      const uint8_t offset = uint8_t(kind % 2 * 128);
      s.divide = kind % 2;
      s.rounded_scale = kind % 4 < 2;
      s.rounding = kind < 4 ? Rounding::kHalfEven : kind < 8 ? Rounding::kHalfAway : Rounding::kHalfUp;
      const size_t group = size_t(s.group), whole = kind < 10 ? 40 : 10, cols = whole * group + 7, groups = whole + 1;
      const CodeValues values = ValuesOf(s, s.table.data());
      SchemeSearch search;
      search.scheme = &s;
      search.values = &values;
      search.scale_cell = s.scale.cell;
      const std::vector<float> x = Weights(cols, group, uint32_t(kind));
      std::vector<float> scale(groups), shift(groups);
      std::vector<uint8_t> codes(cols + 1, 99);
      const uint32_t most =
          RuleGroups(search, x.data(), cols, group, scale.data(), shift.data(), {codes.data(), offset});
      const float largest =
          std::abs(*std::max_element(x.begin(), x.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
      ASSERT_EQ(memcmp(&most, &largest, sizeof most), 0);
      for (size_t g = 0; g < groups; ++g) {
        const size_t n = std::min(group, cols - g * group);
        const Twin t = RuleOf(s, values, &x[g * group], n);
        const auto what = [&] {
          return ::testing::Message() << "rule " << int(s.rule) << ", " << s.bits << " bits, kind " << kind
                                      << ", group " << g;
        };
        ASSERT_EQ(scale[g], t.scale) << what();
        ASSERT_EQ(shift[g], t.shift) << what();
        for (size_t i = g * group; i < g * group + n; ++i)
          ASSERT_EQ(int(uint8_t(codes[i] - offset)), CodeOf(s, values, t, x[i])) << what() << ", weight " << x[i];
      }
      ASSERT_EQ(codes[cols], 99);
      const size_t even = whole * group;
      if (s.bits != 4 || !CodePlace::MayPair(even, group)) continue;
      std::vector<uint8_t> pairs(even / 2 + 1, 99);
      RuleGroups(search, x.data(), even, group, scale.data(), shift.data(), {pairs.data(), 0, true});
      for (size_t i = 0; i < even; ++i)
        ASSERT_EQ(pairs[i / 2] >> (i % 2 * 4) & 15, uint8_t(codes[i] - offset)) << "weight " << i;
      ASSERT_EQ(pairs[even / 2], 99);
    }
}

TEST_P(RulesOnEachTarget, FindsWhatIsNotFinite) {
  const Scheme s = Rules(Rule::kRangeZero, 4, Zero::kInteger);
  const CodeValues values = ValuesOf(s, nullptr);
  SchemeSearch search;
  search.scheme = &s;
  search.values = &values;
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY})
    for (size_t at = 0; at < 77; ++at) {
      std::vector<float> x(77, at % 2 ? -1.0f : 1.0f), scale(3), shift(3);
      std::vector<uint8_t> codes(77);
      x[at] = bad;
      const uint32_t most = RuleGroups(search, x.data(), 77, 32, scale.data(), shift.data(), {codes.data()});
      EXPECT_GE(most, 0x7f800000u) << bad << " at " << at;
    }
}

// Every divisor for which some weight's quotient comes as near as can be to a limit between two codes, halfway between
// two floats beside it: S * H - d is a multiple of 2^24, where H, of 25 bits, is that point and S the divisor's 24
// bits.
template <class Body>
void ForHardQuotients(float limit, const Body& body) {
  for (const bool above : {false, true}) {
    const double to = double(std::nextafter(limit, above ? INFINITY : 0.0f)), halfway = (double(limit) + to) / 2;
    int exponent;
    const uint64_t h = uint64_t(std::ldexp(std::frexp(halfway, &exponent), 25));
    uint64_t inverse = 1;
    for (int k = 0; k < 6; ++k) inverse *= 2 - h * inverse;  // modulo 2^64
    for (int d = -16; d <= 16; ++d)
      for (const int bits : {24, 25}) {
        const uint64_t first = uint64_t(int64_t(d)) * inverse & ((1ull << bits) - 1);
        for (uint64_t s = first; s < 1 << 24; s += 1ull << bits) {
          if (s < 1 << 23) continue;
          const uint64_t x = (s * h - uint64_t(int64_t(d))) >> bits;
          if (x >= 1 << 23 && x < 1 << 24) body(std::ldexp(float(x), bits - 25 + exponent), std::ldexp(float(s), 0));
        }
      }
  }
}

TEST_P(RulesOnEachTarget, QuotientsNextToALimitFallOnTheRightSide) {
  size_t hard = 0;
  const auto check = [&](const Scheme& s, const std::vector<float>& limits, float zero) {
    const CodeValues values = ValuesOf(s, nullptr);
    SchemeSearch search;
    search.scheme = &s;
    search.values = &values;
    for (const float limit : limits)
      ForHardQuotients(limit, [&](float x, float by) {
        const GroupScale scale = {by, zero, by, zero};
        uint8_t codes[40];
        const std::vector<float> row(40, x);
        CodesByRule(search, &scale, row.data(), 40, codes);
        const Twin t = {by, zero, by, 0, s.zeros == Zero::kInteger ? zero : s.zero};
        const int want = CodeOf(s, values, t, x);
        for (const uint8_t code : codes) ASSERT_EQ(int(code), want) << x << " / " << by << " + " << t.plus;
        ++hard;
      });
  };
  Scheme whole = Rules(Rule::kAbsMax, 8, Zero::kInteger);
  whole.divide = true;
  whole.group = 40;
  for (const int zero : {0, 1, 7, 8, 128, 200}) {
    std::vector<float> limits;
    for (int code = zero; code < 256; ++code) {  // where the sum with the zero reaches, and leaves, a half
      const float half = float(code - zero) + 0.5f,
                  step = std::nextafter(float(code) + 0.5f, 1e9f) - (float(code) + 0.5f);
      limits.insert(limits.end(), {half, half + step / 2, half - step / 2});
    }
    check(whole, limits, float(zero));
  }
  for (Scheme s : {SmallFloats(Rule::kAbsMax, 8, 4, 7, 448, Cell::kF32),
                   SmallFloats(Rule::kAbsMax, 8, 5, 15, 57344, Cell::kF32)}) {
    s.divide = true;
    s.group = 40;
    const CodeValues values = ValuesOf(s, nullptr);
    std::vector<float> limits;
    for (int k = 1; k < 256; ++k)
      if (values.sorted[k - 1] >= 0 && values.sorted[k] > values.sorted[k - 1])
        limits.push_back(values.sorted[k - 1] / 2 + values.sorted[k] / 2);
    check(s, limits, 0);
  }
  EXPECT_GT(hard, 10000u);
}

INSTANTIATE_TEST_SUITE_P(Targets, RulesOnEachTarget, testing::ValuesIn(KernelTargets()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace edgequant
