// What every caller may rely on once a file was accepted.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "io/stored.h"

namespace edgequant {

// Ends the process unless all tensors lie within [data, data + size) and do not overlap; reads their first and last
// byte.
inline void CheckTensors(const std::vector<StoredTensor>& tensors, const uint8_t* data, size_t size) {
  static volatile uint8_t sink;
  std::vector<std::pair<size_t, size_t>> extents;
  for (const StoredTensor& t : tensors) {
    if (t.name.empty() && t.type.empty()) std::abort();
    if (t.offset > size || t.size > size - t.offset || t.data != data + t.offset) std::abort();
    if (t.size == 0) continue;
    sink = t.data[0];
    sink = t.data[t.size - 1];
    extents.emplace_back(t.offset, t.offset + t.size);
  }
  (void)sink;
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i)
    if (extents[i].first < extents[i - 1].second) std::abort();
}

}  // namespace edgequant
