// Memory that is kept between calls: one object per thread and purpose.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace edgequant {

class Scratch {
 public:
  // Room for `count` numbers that starts at a cache line; what it holds is not defined.
  template <class T>
  T* Get(size_t count) {
    const size_t bytes = count * sizeof(T) + kLine;
    if (size_ < bytes) {
      memory_.reset(new uint8_t[bytes]);
      size_ = bytes;
    }
    const size_t at = reinterpret_cast<uintptr_t>(memory_.get()) % kLine;
    return reinterpret_cast<T*>(memory_.get() + (kLine - at) % kLine);
  }

 private:
  static constexpr size_t kLine = 64;
  std::unique_ptr<uint8_t[]> memory_;
  size_t size_ = 0;
};

}  // namespace edgequant
