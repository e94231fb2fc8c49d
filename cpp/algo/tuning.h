// Policy of the search: which weights a format's errors have, and how much work an effort means.
#pragma once
#include "algo/quantize.h"
#include "kernels/cpu/search.h"

namespace edgequant {

// The weights of the squared errors. Under Objective::kGgml those of ggml's own quantizer of the format; where that
// ignores the importance, the plain squared error times the importance.
Weighting WeightingOf(FormatId to, Objective objective, bool importance);

Tuning TuningOf(FormatId to, Effort effort, const Weighting& weighting);

}  // namespace edgequant
