// The best levels of many small groups at once.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace edgequant {

constexpr size_t kMostGroupLevels = 16, kMostGroupWeights = 256;  // what BestGroupLevels takes

// For each of `groups` groups of n numbers (x: groups x n) the k levels, in rising order, with the least weighted
// squared distance, weighted by w (groups x n) where it is not null. If there are fewer different numbers, levels
// repeat. levels: groups x k. By dynamic programming over the cuts of the sorted numbers, a group per lane, in float32.
// quick: only some of the cuts are looked at, and levels and cuts then move in turns (Lloyd's rounds): one to a few per
// cent off.
void BestGroupLevels(const float* x, const float* w, size_t groups, size_t n, int k, bool quick, float* levels);

}  // namespace edgequant
