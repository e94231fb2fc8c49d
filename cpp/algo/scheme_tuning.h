// How hard to search for the scales of a run-time format.
#pragma once
#include "algo/quantize.h"
#include "kernels/cpu/scheme_search.h"

namespace edgequant {

SchemeTuning SchemeTuningOf(const Scheme& s, const CodeValues& values, Effort effort);

// The importance of the columns, scaled so that no sum overflows; groups that do not count at all count evenly. Empty
// for null. Throws Error for numbers that are negative or not finite.
std::vector<float> SchemeImportance(const float* importance, size_t cols, size_t group);

}  // namespace edgequant
