// What a model file holds, whatever its kind.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace edgequant {

struct StoredTensor {
  std::string name;
  std::string type;             // the file's own type name in lower case: "f32", "bf16", "i64", "q4_k"
  std::vector<uint64_t> shape;  // row-major, the outermost dimension first (GGUF stores them the other way round)
  const uint8_t* data;          // size bytes, inside the mapping
  size_t size;
  size_t offset;                // of data, from the start of the file
};

// Multiplies two sizes that a file claims; false if the product does not fit.
inline bool Multiply(uint64_t a, uint64_t b, uint64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

}  // namespace edgequant
