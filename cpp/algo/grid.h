// Encoding the formats whose weights are points of a vector grid.
#pragma once
#include "algo/quantize.h"
#include "kernels/cpu/grid_search.h"

namespace edgequant {

// The search problem that the description of a grid format states, with the error weights of the objective.
GridProblem GridProblemOf(FormatId to, const QuantizeOptions& options);

// True for formats whose codes are rows of a grid.
bool IsGrid(FormatId id);

// The largest magnitude that every weight of a block can have.
float GridLimit(FormatId id);

// Encodes rows x cols weights; importance: a row of cols numbers, or null.
void QuantizeGrid(const GridProblem& problem, FormatId to, const float* x, size_t rows, size_t cols,
                  const float* importance, uint8_t* out);

}  // namespace edgequant
