// The importance vector as the search wants it.
#pragma once
#include <cstddef>
#include <vector>

#include "format/block.h"

namespace edgequant {

// Checks `cols` numbers (finite, not negative; else throws Error) and scales them so that the largest of each block's
// columns is 1. Where a whole block has none, its columns count alike; a group without any inside a block that has some
// gets a trace, so that its codes are sensible without disturbing the others. Empty if importance is null.
std::vector<float> PrepareImportance(const float* importance, size_t cols, const Block& block);

}  // namespace edgequant
