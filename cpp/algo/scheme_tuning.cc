#include "algo/scheme_tuning.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace edgequant {
namespace {

float Fraction(double v) { return float(v - std::floor(v)); }

// Both ends of the range move: low-discrepancy points over the square of their clipping, the unclipped range first.
void SetRangeStarts(const CodeValues& v, SchemeTuning& t) {
  const float from = v.codes <= 4 ? -0.6f : -1.0f, to = 1.1f;
  for (int k = 0; k < t.starts; ++k) {
    t.start[k][0] = k == 0 ? 0 : from + (to - from) * Fraction(0.5 + 0.7548776662466927 * k);
    t.start[k][1] = k == 0 ? 0 : from + (to - from) * Fraction(0.5 + 0.5698402909980532 * k);
  }
}

// The weight of largest magnitude goes to one end of the values, or some steps beyond it.
void SetExtremeStarts(const Scheme& s, const CodeValues& v, Effort effort, SchemeTuning& t) {
  const bool symmetric = std::abs(v.low + v.high) < 0.01f * v.step, best = effort == Effort::kBest;
  const int low_starts = symmetric ? 0 : -v.low > v.high ? (t.starts * 2 + 2) / 3 : v.low < 0 ? t.starts / 3 : 0;
  const float from = v.codes >= 64 ? (best ? -6.0f : -3.0f)
                     : best        ? -1.5f
                                   : -0.9f,
              to = v.codes >= 64          ? 2
                   : best || v.codes > 16 ? 1.7f
                                          : 1.1f;
  for (int k = 0; k < t.starts; ++k) {
    const bool low = k < low_starts;
    const int place = low ? k : k - low_starts, places = low ? low_starts : t.starts - low_starts;
    const float end = std::abs(low ? v.low : v.high);
    const float share = float(std::max(place - 1, 0)) / float(std::max(1, places - 2));
    float by = 1;
    if (place > 0 && v.codes <= 4) by = std::pow(1.0f / 16, float(place) / float(std::max(1, places - 1)));
    else if (place > 0 && s.values == Values::kMinifloat) by = std::pow(2.0f, 0.6f - 1.6f * share);
    else if (place > 0) by = end / std::max(end + (from + (to - from) * share) * v.step, 0.1f * end);
    t.start[k][0] = low ? -1 : 1;
    t.start[k][1] = by;
  }
}

}  // namespace

SchemeTuning SchemeTuningOf(const Scheme& s, const CodeValues& values, Effort effort) {
  SchemeTuning t;
  const bool range = s.zeros != Zero::kNone;
  // more where fewer leave an error above that of a built-in format of the class: two levels, tables without a
  // reference
  const bool uneven = s.values == Values::kTable && s.rule == Rule::kNone;
  const int usual = range ? (s.two_level() ? 20 : 12) : values.codes <= 4 || uneven ? 16 : 8;
  t.starts = effort == Effort::kFast ? 8 : effort == Effort::kDefault ? usual : kMaxSchemeStarts;
  t.rounds = effort == Effort::kFast ? 1 : effort == Effort::kDefault ? 2 : 5;
  t.scale_steps = s.scale.cell == Cell::kE8M0 ? (effort == Effort::kBest ? 2 : 1) : 2 + 2 * int(effort);
  if (range) SetRangeStarts(values, t);
  else SetExtremeStarts(s, values, effort, t);
  return t;
}

std::vector<float> SchemeImportance(const float* importance, size_t cols, size_t group) {
  std::vector<float> out;
  if (!importance) return out;
  float most = 0;
  for (size_t c = 0; c < cols; ++c) {
    if (!(importance[c] >= 0) || std::isinf(importance[c]))
      Fail("importance of column ", c, " is ", importance[c], ", which is not a finite number from 0 up");
    most = std::max(most, importance[c]);
  }
  out.assign(importance, importance + cols);
  for (float& v : out) v = most > 0 ? v / most : 1;
  for (size_t c = 0; c < cols; c += group) {
    const auto begin = out.begin() + ptrdiff_t(c), end = out.begin() + ptrdiff_t(std::min(cols, c + group));
    if (*std::max_element(begin, end) < 1e-6f) std::fill(begin, end, 1e-6f);
  }
  return out;
}

}  // namespace edgequant
