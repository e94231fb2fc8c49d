// The weighted least-squares search for scales, minima and codes of every described block format with an affine or
// table map. One group of weights (those that share a scale) per SIMD lane, so that no loop has horizontal sums.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/catalog.h"

namespace edgequant {

// The weight of each squared error, as a function of the weight's value; the importance multiplies it.
enum class WeightRule : uint8_t {
  kOne,                // 1: plain squared error
  kSquare,             // mean x^2 + x^2
  kRmsPlusMagnitude,   // sqrt(mean x^2) + |x|
  kRootSquares,        // sqrt(mean x^2 + x^2)
};
// Over what the mean is taken.
enum class MeanScope : uint8_t { kGroup, kBlock, kRow };
struct Weighting {
  WeightRule rule = WeightRule::kOne;
  MeanScope scope = MeanScope::kGroup;
  float factor = 1;  // times the mean square
};

constexpr int kMaxStarts = 32, kMaxCandidates = 64;

// All knobs of one search. A start says where the first trial puts the ends of a group's range on the code grid:
// scale only: (+1 or -1: the end of the grid to which the weight of largest magnitude goes, steps beyond that end);
// with a minimum: (steps clipped below, steps clipped above).
struct Tuning {
  int starts = 16;          // even
  int refine = 0;           // further least-squares refits of the best start
  int rounds = 2;           // alternations of codes and scales once the scales are rounded as stored
  bool neighbours = false;  // in these, also try each integer scale one up and one down
  int polish = 0;           // at the end, numbers tried on each side of those found, twice
  bool mirror = false;      // with a minimum: also try the block with its signs turned around
  int scale_steps = 1;      // 8-bit scale types: steps tried above and below the plain choice
  int candidates = 0;       // for the block's number over its groups' scales; a multiple of 16
  float start[kMaxStarts][2] = {};
  float candidate[kMaxCandidates] = {};  // the integer, not rounded, at which the extreme scale ends up
};

struct SearchJob {
  const float* x = nullptr;           // rows * cols
  size_t rows = 0, cols = 0;
  const float* importance = nullptr;  // cols numbers, not all zero within a group; or null
  Weighting weighting;
  const Tuning* tuning = nullptr;
  const Tuning* also = nullptr;       // a second search, or null: each block keeps the better result
  uint8_t* out = nullptr;             // the blocks, row after row
  const Tuning* uneven = nullptr;     // two levels: one more, or null, for blocks where one weight outweighs its group
  const Tuning* dominated = nullptr;  // and for those where one outweighs the block
};

// False for formats that have no search (float formats, grids).
bool CanSearch(FormatId id);
void SearchRows(FormatId id, const SearchJob& job);

}  // namespace edgequant
