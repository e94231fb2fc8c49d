// Codes of a run-time format to weights.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/scheme_values.h"

namespace edgequant {

// One row: `cols` weights in groups of `group` (the last may be shorter).
struct DecodeRow {
  const CodeValues* values = nullptr;  // null for codebooks and tables of groups
  const float* table = nullptr;        // codebook: codes x dim; tables of groups: groups x codes
  int dim = 1, codes = 0;
  Zero zeros = Zero::kNone;
  const uint8_t* code = nullptr;       // cols / dim
  const float* scale = nullptr;        // one per group; null: 1
  const float* shift = nullptr;        // zeros or minima, one per group
  size_t cols = 0, group = 0;
};

void DecodeCodes(const DecodeRow& row, float* out);

}  // namespace edgequant
