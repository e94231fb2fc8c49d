// Random blocks for tests, and the equality that decoders owe each other.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "format/catalog.h"

namespace edgequant {

// Any bytes at all: scales are NaN, infinite or subnormal now and then.
inline std::vector<uint8_t> RandomBlocks(FormatId id, size_t blocks, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(blocks * size_t(BlockOf(id).bytes));
  for (uint8_t& b : bytes) b = uint8_t(random());
  return bytes;
}

inline bool SameBits(float a, float b) {
  return memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

// The first place where they differ, or -1.
inline ptrdiff_t FirstDifference(const float* a, const float* b, size_t n) {
  for (size_t k = 0; k < n; ++k)
    if (!SameBits(a[k], b[k])) return ptrdiff_t(k);
  return -1;
}

inline std::vector<FormatId> AllFormats() {
  std::vector<FormatId> ids;
  for (int k = 0; k < kFormatCount; ++k) ids.push_back(FormatId(k));
  return ids;
}

}  // namespace edgequant
