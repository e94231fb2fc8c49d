// Codes of a run-time format to weights.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/scheme_values.h"

namespace edgequant {

// Where each of 16 codes side by side lies in 16 bytes: two bytes are picked, and shifted down (or, base 3, multiplied
// up to where the digit is the highest). Bits repeat after 16 codes, base-3 digits after five times as many.
struct CodePattern {
  int phases = 0;                         // 1; of base-3 digits 5
  int bytes = 0;                          // from the first of all phases to the next
  int offset = 0, mask = 0;               // code = (what was shifted - offset) & mask
  alignas(64) uint8_t pick[5][64] = {};   // for lanes of 32 bits; 0x80: 0
  alignas(64) uint32_t shift[5][16] = {};
};
// Of a stream: bits from the lowest up, or (1, 2, 4, 8) from the highest down in each byte, or base-3 digits.
CodePattern PatternOf(const Plane& p);

// Codes that are read where they lie: runs of `run` weights (a multiple of 16), `step` bytes apart.
struct PackedCodes {
  const CodePattern* pattern = nullptr;  // null: they are given as bytes
  const uint8_t* first = nullptr;
  const uint8_t* end = nullptr;          // of what may be read
  size_t run = 0, step = 0;
};

// One row: `cols` weights in groups of `group` (the last may be shorter; of packed codes, a multiple of 16 each).
struct DecodeRow {
  const CodeValues* values = nullptr;  // null for codebooks and tables of groups
  const float* table = nullptr;        // codebook: codes x dim; tables of groups: groups x codes, and 16 numbers more
  int dim = 1, codes = 0;
  Zero zeros = Zero::kNone;
  const uint8_t* code = nullptr;       // cols / dim; unused where they are packed
  int half_bits = 0;                   // not 0: codes of two integers, the upper one from this bit up
  PackedCodes packed;
  const float* scale = nullptr;        // one per group; null: 1
  const float* shift = nullptr;        // zeros or minima, one per group
  size_t cols = 0, group = 0;
  bool exact_products = false;         // value * scale has no more than 24 bits
};

void DecodeCodes(const DecodeRow& row, float* out);

// (integer - zero) * super of `blocks` blocks with `n` integers each: integers in streams `step` bytes apart that may
// be read up to `end`, one number `super` for each block.
void ReadScaledIntegers(const CodePattern& pattern, const uint8_t* from, const uint8_t* end, size_t step, size_t blocks,
                        size_t n, float zero, const float* super, float* out);

// Numbers in `runs` runs of `run` side by side, `step` bytes from one run to the next.
void ReadCells(Cell cell, const uint8_t* from, size_t step, size_t runs, size_t run, float* out);

}  // namespace edgequant
