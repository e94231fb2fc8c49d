#include "algo/tuning.h"

#include <algorithm>
#include <cmath>

#include "format/shape.h"

namespace edgequant {
namespace {

struct Span { float low, high; };

// The span of start points in grid steps: above 0 they clip the extreme weight, below 0 they leave headroom. Finer
// grids have more local minima, so a wider span pays there; more starts than about 12 per unit of span are wasted.
Span SpanOf(const Shape& s, Effort effort) {
  const bool fast = effort == Effort::kFast, best = effort == Effort::kBest;
  if (s.affine) return {s.codes <= 4 || (fast && s.two_level) ? -0.6f : -1.0f, 1.1f};
  if (s.codes >= 64) return best ? Span{-6, 2} : Span{-4, 0};
  if (s.codes == 32) return best ? Span{-4, 2} : Span{-2.5f, 2};
  return best ? Span{-1.5f, 1.7f} : Span{-0.9f, 1.1f};
}

// Weights of x^2 put the minimum close to the extreme weight; even ones spread it out and need more starts. Less effort
// makes fewer of them only where that saves much: for the rest, more effort can then not be worse by chance.
int StartsOf(const Block& b, const Shape& s, Effort effort, WeightRule rule) {
  if (effort == Effort::kBest) return kMaxStarts;
  if (s.affine) return !s.two_level ? 28 : effort == Effort::kFast ? 10 : 16;
  if (b.map.kind == MapKind::kTable && s.codes == 16) return 16;  // trials of 16 bits are cheap
  return rule == WeightRule::kSquare || s.codes >= 64 ? 8 : 24;
}

void SetStarts(const Shape& s, Span span, Tuning& t) {
  const auto fraction = [](double v) { return float(v - std::floor(v)); };
  const auto within = [&](float f) { return span.low + (span.high - span.low) * f; };
  // two thirds of the scale-only starts send the extreme weight to the low end, which is one step longer
  const int low_starts = s.low == -s.high ? 0 : (t.starts * 2 + 2) / 3;
  for (int k = 0; k < t.starts; ++k) {
    float* start = t.start[k];
    const int place = k < low_starts ? k : k - low_starts, places = k < low_starts ? low_starts : t.starts - low_starts;
    if (s.affine) {  // low-discrepancy points over the square of both ends, the unclipped range first
      start[0] = k == 0 ? 0 : within(fraction(0.5 + 0.7548776662466927 * k));
      start[1] = k == 0 ? 0 : within(fraction(0.5 + 0.5698402909980532 * k));
    } else {
      start[0] = k < low_starts ? -1 : 1;
      start[1] = place == 0 ? 0
                 : s.codes <= 4  // few levels: the best scale may clip most of the weights
                     ? std::pow(16.0f, float(place) / float(places - 1)) - 1
                     : within(float(place - 1) / float(std::max(1, places - 2)));
    }
  }
}

// From the last integer, with a margin, down to 70 % of it; signed ones from both ends in turns.
void SetCandidates(const Shape& s, int count, Tuning& t) {
  const bool both = s.scale_low < 0;
  t.candidates = count;
  for (int k = 0; k < count; ++k) {
    const float fraction = both ? float(k / 2) / float(count / 2) : float(k) / float(count);
    const int end = both && k % 2 == 0 ? s.scale_low : s.scale_high;
    t.candidate[k] = float(end) + (end < 0 ? -0.4f : 0.4f) - 0.3f * float(end) * fraction;
  }
}

}  // namespace

Weighting WeightingOf(FormatId to, Objective objective, bool importance) {
  if (objective == Objective::kPlain) return {};
  switch (to) {
    case FormatId::kQ4_0:
    case FormatId::kQ4_1:
    case FormatId::kQ5_0:
    case FormatId::kQ5_1: return importance ? Weighting{WeightRule::kRootSquares, MeanScope::kRow, 1} : Weighting{};
    case FormatId::kQ2_K:
      if (importance) return {WeightRule::kRootSquares, MeanScope::kBlock, 1};
      return {WeightRule::kRmsPlusMagnitude, MeanScope::kGroup,
              1e-4f};  // |x|, with a trace of the mean for small weights
    case FormatId::kQ4_K:
    case FormatId::kQ5_K:
      return importance ? Weighting{WeightRule::kRootSquares, MeanScope::kBlock, 2}
                        : Weighting{WeightRule::kRmsPlusMagnitude};
    case FormatId::kQ6_K: return importance ? Weighting{} : Weighting{WeightRule::kSquare, MeanScope::kGroup, 0};
    case FormatId::kQ3_K:
    case FormatId::kIQ4_NL:
    case FormatId::kIQ4_XS:
      // ggml's weights are x^2; with a little more for small weights both that measure and the plain error end below
      // its own.
      if (!importance) return {WeightRule::kSquare, MeanScope::kGroup, 0.8f};
      return {WeightRule::kRootSquares, MeanScope::kBlock, 2};
    default: return {};
  }
}

Tuning TuningOf(FormatId to, Effort effort, const Weighting& weighting) {
  const Shape s = ShapeOf(BlockOf(to));
  const int level = int(effort);
  Tuning t;
  t.starts = StartsOf(BlockOf(to), s, effort, weighting.rule);
  t.refine = s.affine ? 1 : 0;
  const int least = s.affine || weighting.rule == WeightRule::kSquare ? 0 : 1;  // even weights need a bit more work
  t.rounds = 1 + std::max(least, level);
  t.neighbours = t.mirror = effort == Effort::kBest;
  if (effort == Effort::kBest)  // coarse grids are at their optimum already
    t.polish = s.affine ? (s.two_level ? 6 : 48) : s.codes < 32 ? 6 : s.two_level ? 16 : 48;
  t.scale_steps = BlockOf(to).scale.type == Number::kUE4M3 ? 2 + 2 * level : 1 + level / 2;
  SetStarts(s, SpanOf(s, effort), t);
  // Under x^2 few weights decide, and a block's best number is not where most groups want it.
  if (s.two_level)
    SetCandidates(s, weighting.rule == WeightRule::kSquare && level < 2 ? 16 : 16 << std::max(least, level), t);
  return t;
}

}  // namespace edgequant
