// Scales, zeros and codes of run-time formats: the rule of a format's reference encoder, and the weighted least-squares
// search. Results are one scale and one shift (zero point or minimum) per group, as they will be read back.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/cell.h"
#include "kernels/cpu/scheme_values.h"

namespace edgequant {

constexpr int kMaxSchemeStarts = 48;

// Starts: where the first trial puts the ends of a group's range on the codes, in steps. With a zero or minimum of the
// group: (steps clipped below, above). Scale only: (+1 or -1: the end of the values that the weight of largest
// magnitude goes to, a positive scale or one of either sign; by what the scale is multiplied).
struct SchemeTuning {
  int starts = 0;          // even
  int rounds = 1;          // alternations of codes and stored scale
  int scale_steps = 1;     // 8-bit scales: steps tried above and below
  const SchemeTuning* lower = nullptr;  // of a lower effort, whose result is kept where it is better
  float start[kMaxSchemeStarts][2] = {};
};

struct SchemeSearch {
  const Scheme* scheme = nullptr;
  const CodeValues* values = nullptr;
  const SchemeTuning* tuning = nullptr;  // null: the rule alone
  Cell scale_cell = Cell::kF32;          // to which scales are rounded; kF32 where another level follows
  bool any_shift = false;                // minima are not rounded
  bool minimum_below_zero = false;       // minima are 0 or less
};

// ---- Groups of a row: x is rows x cols, importance cols numbers or null; scale and shift rows x groups.

void SearchScales(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
                  float* scale, float* shift);

// What the best codes for given scales and shifts leave: for each group the sums of w, w x, w v, w v^2 and w v x over
// its weights x with importance w and values v. For minima and values that count from 0.
struct GroupSums { float w, x, l, ll, xl; };
void SumGroups(const SchemeSearch& s, const float* x, size_t rows, size_t cols, const float* importance,
               const float* scale, const float* shift, GroupSums* sums);

// Which of the ends e leaves n numbers v the nearest to whole numbers in [low, high], times 1 / (e * inverse): by
// squares. A multiple of 16 of ends.
size_t BestEnd(const float* v, size_t n, float inverse, const float* ends, size_t count, float low, float high);

// Codes of one group of n weights.
void ChooseCodes(const SchemeSearch& s, const float* x, size_t n, float scale, float shift, uint8_t* codes);
// Where codes go, one byte each with `offset` added (modulo 256), or in pairs: two of 4 bits to a byte, the first in
// its low bits.
struct CodePlace {
  uint8_t* at = nullptr;
  uint8_t offset = 0;
  bool pairs = false;
  size_t Bytes(size_t codes) const { return pairs ? codes / 2 : codes; }
  CodePlace From(size_t code) const { return {at + Bytes(code), offset, pairs}; }
  // Pairs are written of whole vectors only: of so many weights in such groups.
  static bool MayPair(size_t cols, size_t group) {
    return cols % 64 == 0 && cols % group == 0 && (group % 64 == 0 || group == 32 || group == 16);
  }
};
// Codes as the reference encoder rounds them, and its scale and shift, for `cols` weights in groups of `group`, of
// which the last may be shorter. Returns the bits of the largest magnitude, as LargestMagnitude; what is written for
// NaN and infinity has no meaning.
uint32_t RuleGroups(const SchemeSearch& s, const float* x, size_t cols, size_t group, float* scale, float* shift,
                    const CodePlace& codes);

// The parts of RuleGroups: the rule for a group of this range, and the codes of all groups of a row.
struct GroupRange { float low, high, extreme, mean_magnitude; };
struct GroupScale { float scale, shift, unrounded_scale, unrounded_shift; };  // the first two as stored
GroupScale ScaleByRule(const SchemeSearch& s, const GroupRange& range);
void CodesByRule(const SchemeSearch& s, const GroupScale* scale, const float* x, size_t cols, uint8_t* codes);
// Without the mean. `largest`: as RuleGroups returns it.
GroupRange RangeOf(const float* x, size_t n, uint32_t* largest = nullptr);

// n numbers side by side, rounded as WriteCell does. Not for integers.
void WriteCells(Cell cell, const float* v, size_t n, uint8_t* out);

// ---- One group of any size, in one piece: w may be null.

void SearchGroup(const SchemeSearch& s, const float* x, const float* w, size_t n, float* scale, float* shift);

}  // namespace edgequant
