// Search for the nearest points of vector grids: GGML's IQ1, IQ2 and IQ3 families and whatever is described like them.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <optional>
#include <vector>

#include "format/catalog.h"

namespace edgequant {

// The search tables of one grid, built once. A vector's cost is the sum of four quarters' costs; each quarter
// (two weights of an 8-vector, one of a 4-vector) takes few values. Points that share their first half form a run: the
// least cost of a run is its first half's cost plus the minimum over the second halves that it holds. Runs share most
// of their second halves with others, so the minima of common pairs are taken once ("merges"): 2048 points of IQ1
// need about 850 minima in place of 2048.
class GridIndex {
 public:
  static constexpr int kRowBytes = 64;

  // The grid's dim is 8, with at most 3 levels, or 4, with at most 8.
  explicit GridIndex(const GridTable& grid);

  struct Run {
    uint8_t first, second;  // the quarters of the first half
    uint16_t half;          // first + second * quarter
    uint16_t begin;         // its first member
  };
  struct RunClass {
    uint16_t length, count;  // `count` runs of `length` members each
  };
  struct Merge {
    uint16_t a, b;
  };

  int dim, levels, rows;
  int quarter, half;    // entries of a quarter's and of a half's table
  float value[8] = {};  // the different numbers, ascending
  float mean_square;
  std::vector<Run> runs;  // in order of length
  std::vector<RunClass> classes;
  std::vector<uint16_t> members;  // rows of the second half's table, as byte offsets
  std::vector<Merge> merges;      // row half + k of that table is the minimum of two rows (byte offsets, too)
  std::vector<int32_t> row;       // half x half: the point with these two halves, or -1
  std::vector<int32_t> word;      // half: its numbers as signed bytes, the first lowest
};

enum class GridSigns : uint8_t { kNone, kFree, kEven };
// How errors of weight x count, importance m, mean square of the 256 weights q: m, m sqrt(a q + x^2) or a q + x^2.
enum class GridWeights : uint8_t { kImportance, kImportanceRms, kSquare };

struct GridTuning {
  int samples;              // trial scales of each sub-block: 3 to 6, evenly spaced
  float low, high;          // their range, in units of the sub-block's root mean square over the grid's
  float high_max;           // and up to the largest weight over the largest value times this
  int candidates;           // super-scales weighed by the curve through the trials, a multiple of 16, at most 64
  float max_low, max_high;  // they put the largest sub-block scale at this multiple of the super-scale
  int supers;               // of them searched in full
  int neighbours;           // sub-block scales tried around the expected one, with all points picked anew; at least 1
  int refine;               // rounds of: super-scale by least squares, scales and points picked anew
  bool both;                // the sign of delta is tried at every scale, not only in the middle of the range
  bool coarse;              // costs of 8 bits while comparing scales, of 16 when picking points
};

// One family member: x = d * unit * (2 k + 1) * sign * (value + delta), d per 256 weights, k per `sub` weights.
struct GridProblem {
  const GridIndex* index = nullptr;
  GridSigns signs = GridSigns::kFree;
  int sub = 32;     // weights per scale k: 16 or 32
  int scales = 16;  // k < scales
  float unit = 1;
  float delta = 0;      // values are shifted by +delta or -delta ...
  int delta_group = 0;  // ... per so many weights: 8 or `sub`
  GridWeights weights = GridWeights::kImportance;
  float sigma = 0;  // the `a` of GridWeights
  GridTuning tuning = {};
  bool mirror = false;              // without signs: also with all weights negated, which makes d negative
  std::optional<GridTuning> also;  // a second search: each block keeps the better result
  std::optional<GridTuning> even;  // the same for blocks whose weights are of nearly one magnitude
};

inline constexpr int kGridBlock = 256;

// The codes and parameters of 256 weights.
struct GridBlock {
  uint16_t d;            // f16 bits
  uint8_t scale[16];     // per sub-block
  uint16_t code[64];     // per vector
  uint8_t negative[32];  // a bit per weight, weight 0 lowest
  uint8_t minus[32];     // per 8 weights: delta is subtracted
};

// Quantizes blocks x 256 weights. importance: null or a row of `cols` numbers; block b starts at column
// (first_column + 256 b) % cols of it.
void SearchGrid(const GridProblem& problem, const float* x, size_t blocks, const float* importance, size_t first_column,
                size_t cols, GridBlock* out);

// Writes n blocks of a grid format, which has one f16 scale and sub-scales.
void PackGridBlocks(FormatId to, const GridBlock* blocks, size_t n, uint8_t* out);

}  // namespace edgequant
