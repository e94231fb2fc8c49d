// What kernels need to know of the codes of a run-time format.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "format/scheme.h"

namespace edgequant {

// Values by code and in rising order, with the limits between neighbours as a tree: node k of level l decides between
// its children 2k and 2k + 1; past the last level k counts the sorted values.
struct CodeValues {
  Values kind = Values::kAffine;
  int codes = 0, bits = 0;
  float zero = 0;                      // kAffine: value = code - zero, before a zero of the group
  float low = 0, high = 0, step = 0;   // the least and the largest value, and how far they are apart on average
  int mantissa_bits = 0, exponent_bias = 0;
  int levels = 0;                      // limits are looked up this often
  // Of 9 to 16 values, none of whose limits are too close: the range in kCells cells of equal size, each with at most
  // one limit (or 3e38), and how many values lie below it.
  static constexpr int kCells = 32;
  bool in_cells = false;
  float first_cell = 0, cells_per_unit = 0;
  alignas(64) float cell_limit[kCells] = {};
  alignas(64) int32_t cell_rank[kCells] = {};
  alignas(64) float value[256] = {};
  alignas(64) float sorted[256] = {};
  alignas(64) float limit[8][256] = {};
  alignas(64) int32_t code[256] = {};  // of the sorted values
};

// `table`: the learned values, else those of the scheme. Not for codebooks and tables of groups.
CodeValues ValuesOf(const Scheme& s, const float* table);

// The value of each code of a small float, as many as 1 << bits.
float MinifloatValue(const Scheme& s, int code);

}  // namespace edgequant
