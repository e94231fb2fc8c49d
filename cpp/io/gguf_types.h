// The tensor types of GGUF files: every catalogued format with a number, and plain numbers.
#pragma once
#include <cstdint>
#include <string_view>

namespace edgequant {

struct GgufTensorType {
  uint32_t number;
  const char* name;
  uint64_t block;  // weights
  uint64_t bytes;  // of a block
};

constexpr uint32_t kGgufTypeF32 = 0;

// False if there is no such type.
bool FindTensorType(uint32_t number, GgufTensorType* type);
bool FindTensorType(std::string_view name, GgufTensorType* type);

// True for numbers of types that ggml has taken back: files that use them cannot be read by anything current.
bool IsRemovedTensorType(uint32_t number);

constexpr int kMaxDimensions = 4;  // ggml's limit

}  // namespace edgequant
