#include "algo/tuning.h"

#include <cmath>

#include "format/shape.h"

namespace edgequant {
namespace {

struct Span { float low, high; };

// The span of start points in grid steps: above 0 they clip the extreme weight, below 0 they leave headroom. Finer grids
// have more local minima, so a wider span pays there; more starts than about 12 per unit of span are wasted.
Span SpanOf(const Shape& s, Effort effort) {
  const bool fast = effort == Effort::kFast, best = effort == Effort::kBest;
  if (s.affine) return {s.codes <= 4 || fast ? -0.6f : -1.0f, 1.1f};
  if (s.codes == 64) return best ? Span{-6, 2} : Span{-3, 1};
  if (s.codes == 32) return fast ? Span{-1, 1} : best ? Span{-4, 2} : Span{-2.5f, 2};
  if (fast) return {-0.8f, 1.2f};
  if (best && s.codes != 8) return {-2.5f, 2.5f};
  return {-1.3f, 1.3f};
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
      return importance ? Weighting{WeightRule::kRootSquares, MeanScope::kBlock, 1} : Weighting{WeightRule::kMagnitude};
    case FormatId::kQ4_K:
    case FormatId::kQ5_K:
      return importance ? Weighting{WeightRule::kRootSquares, MeanScope::kBlock, 2} : Weighting{WeightRule::kRmsPlusMagnitude};
    case FormatId::kQ6_K: return importance ? Weighting{} : Weighting{WeightRule::kSquare};
    case FormatId::kQ3_K:
    case FormatId::kIQ4_NL:
    case FormatId::kIQ4_XS:
      return importance ? Weighting{WeightRule::kRootSquares, MeanScope::kBlock, 2} : Weighting{WeightRule::kSquare};
    default: return {};
  }
}

Tuning TuningOf(FormatId to, Effort effort) {
  const Shape s = ShapeOf(BlockOf(to));
  const int level = int(effort);
  Tuning t;
  t.starts = (s.affine && !s.two_level ? 12 : 8) << level;
  if (t.starts > kMaxStarts) t.starts = kMaxStarts;
  t.refine = s.affine ? 1 : 0;
  t.rounds = 1 + level;
  t.candidates = 16 << level;
  t.neighbours = t.mirror = effort == Effort::kBest;
  t.step = 0.3f / float(t.candidates);
  t.scale_steps = BlockOf(to).scale.type == Number::kUE4M3 ? 2 + 2 * level : 1 + level / 2;
  const Span span = SpanOf(s, effort);
  const auto fraction = [](double v) { return float(v - std::floor(v)); };
  for (int k = 0; k < t.starts; ++k) {
    float* start = t.start[k];
    if (s.affine) {  // low-discrepancy points over the square of both ends, the unclipped range first
      start[0] = k == 0 ? 0 : span.low + (span.high - span.low) * fraction(0.5 + 0.7548776662466927 * k);
      start[1] = k == 0 ? 0 : span.low + (span.high - span.low) * fraction(0.5 + 0.5698402909980532 * k);
    } else if (s.codes <= 4) {  // few levels: the best scale may clip most of the weights
      start[0] = s.low == -s.high || k % 2 ? 1 : -1;
      start[1] = std::pow(16.0f, float(k) / float(t.starts - 1)) - 1;
    } else {  // both ends in turns, evenly spaced
      start[0] = k % 2 ? 1 : -1;
      start[1] = k < 2 ? 0 : span.low + (span.high - span.low) * float(k / 2 - 1) / float(t.starts / 2 - 2);
    }
  }
  return t;
}

}  // namespace edgequant
