// Encoding whole matrices in run-time formats, on all threads.
#pragma once
#include <vector>

#include "algo/quantize.h"
#include "op/scheme.h"

namespace edgequant {

struct SchemeOptions {
  const float* importance = nullptr;  // one non-negative number per column, or null
  Effort effort = Effort::kDefault;
};

// Arrays of a matrix in memory of their own.
struct SchemeMemory {
  std::vector<uint8_t> bytes[kParts];
  SchemeArrays<uint8_t> arrays;
  SchemeView view;

  SchemeMemory(const Scheme& s, size_t rows, size_t cols);
};

// Encodes x, rows x cols finite floats, into the arrays of the format (ArrayOf gives their sizes), and the learned
// table, codes x dim floats, into `table`. Effort fast is the rule of the format's reference encoder where it has one;
// the others search, and are never above its error. The same input gives the same bytes at any thread count.
void QuantizeScheme(const Scheme& s, const float* x, size_t rows, size_t cols, const SchemeOptions& options,
                    const SchemeArrays<uint8_t>& arrays, std::vector<float>* table);

// The table that QuantizeScheme would learn.
std::vector<float> LearnSchemeTable(const Scheme& s, const float* x, size_t rows, size_t cols,
                                    const SchemeOptions& options);

// The rows that the codes of a transformed format stand for; throws for NaN, infinity, and what would become it.
std::vector<float> RotatedRows(const Scheme& s, const float* x, size_t rows, size_t cols);

// The arrays of given codes (below 2^bits), scales and zeros or minima, rows x groups of them: nothing is searched. Of
// rows that share scales the first counts; a scale of the whole tensor over those of groups becomes 1.
// For codes of one weight, and scales that are no integers under another level; throws Error for others.
void WriteScheme(const Scheme& s, const uint8_t* codes, const float* scale, const float* shift, size_t rows,
                 size_t cols, const SchemeArrays<uint8_t>& arrays);

}  // namespace edgequant
