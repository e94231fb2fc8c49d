// Memory for what is read from end to end, again and again, at the memory's speed: many blocks share a few huge pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace edgequant {

struct SlabDeleter {
  bool alone = true;  // has memory of its own
  void operator()(uint8_t* p) const;
};
using SlabBytes = std::unique_ptr<uint8_t[], SlabDeleter>;

// `bytes` bytes, aligned to 64; what they hold is not defined.
SlabBytes AllocateInSlab(size_t bytes);

}  // namespace edgequant
