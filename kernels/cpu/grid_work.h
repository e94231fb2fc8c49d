// The memory of one tile of a grid search: 32 sub-blocks side by side, one per lane.
#pragma once
#include "kernels/cpu/grid_search.h"

namespace edgequant {

inline constexpr int kGridLanes = 32;
inline constexpr int kGridSamples = 6;  // at most

struct alignas(64) GridWork {  // every row but the last is a multiple of 64 bytes
  // Weight i of sub-block j at [i][j]: its value and the weight of its error.
  float x[32][kGridLanes], w[32][kGridLanes];
  float energy[kGridLanes];  // sum of w x^2

  // 16-bit fixed point with one full scale per 8 weights and lane: sqrt(w) x, and sqrt(w) over its maximum. Signs are
  // taken off x where the format has sign bits; where their parity is odd, the cheapest weight to negate is negative.
  int16_t u[32][kGridLanes], root[32][kGridLanes];
  float factor[4][kGridLanes];  // scale * factor = the largest value times the scale and the largest sqrt(w), 16 bits
  float unit[4][kGridLanes];    // the error that one count of a 16-bit cost stands for
  float full[4][kGridLanes];    // the error that the full scale stands for
  int32_t odd[4][kGridLanes];   // the number of negative weights is odd

  // The least error as a function of the scale: a polynomial in p = (scale - center) / reach, |p| <= 1;
  // outside, `beyond` times the squared distance is added.
  float curve[kGridSamples][kGridLanes], center[kGridLanes], reach[kGridLanes], beyond[kGridLanes];
  float lowest[kGridLanes];         // the scale where it is least
  int16_t value[2][8][kGridLanes];  // the grid's numbers over the largest: with +delta, with -delta

  // Costs of one vector.
  int16_t level[8][kGridLanes], cost[8][kGridLanes];
  uint16_t quarter[4][16][kGridLanes];
  uint8_t coarse[4][16][2 * kGridLanes];  // the same in 8 bits, half of each row used
  uint16_t best[kGridLanes];

  // The same as parts of keys, of half the lanes: without ([0]) and with ([1]) one flipped sign.
  uint32_t part[2][4][16][kGridLanes / 2], single[2][16][kGridLanes / 2];
  // Picks of the vectors of one group of 8 weights: [vector][flipped].
  int32_t key[2][2][kGridLanes], half[2][2][kGridLanes];

  // The sub-blocks' scales under trial, and the choices made.
  float scale[kGridLanes], error[kGridLanes];
  float sum_xq[kGridLanes], sum_qq[kGridLanes];  // sums of w x q and w q^2, q being the picked value over the scale
  int32_t code[8][kGridLanes], negative[4][kGridLanes];
  uint8_t k[kGridLanes], minus[4][kGridLanes];

  // The second half's table: index->half + index->merges rows of 16-bit costs; and (keys) of 32-bit numbers, the cost
  // and below it 7 bits of the entry and one for a flipped sign, for kGridLanes / 2 lanes.
  uint16_t* table;
  uint32_t* keys[2];
};

}  // namespace edgequant
