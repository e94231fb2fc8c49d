// Reading and writing GGUF files (versions 2 and 3, little-endian), as llama.cpp and the gguf package define them.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "format/catalog.h"
#include "io/mmap.h"
#include "io/safetensors.h"

namespace edgequant {

// GGUF's numbers for the types of metadata values.
enum class GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// One metadata value. Scalars are arrays of one. Numbers stay as the file's little-endian bytes in `numbers`.
struct GgufValue {
  GgufType type = GgufType::kU32;  // of the elements
  bool is_array = false;
  std::vector<uint8_t> numbers;         // numeric and bool types
  std::vector<std::string> strings;     // kString
  std::vector<GgufValue> arrays;        // kArray: nested arrays
};

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

class GgufFile {
 public:
  // Throws Error unless every count, length, type and offset is valid: names are unique, tensors lie inside the file,
  // are aligned and do not overlap, strings end, arrays fit. Nesting is limited.
  static GgufFile Open(const std::string& path);
  static GgufFile Parse(const uint8_t* data, size_t size, const std::string& name);

  uint32_t version() const { return version_; }
  size_t alignment() const { return alignment_; }
  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  uint32_t version_ = 0;
  size_t alignment_ = 32;
  GgufMetadata metadata_;
  std::vector<StoredTensor> tensors_;
};

// Writes a GGUF file that appears at `path` only when Finish() succeeds: until then it has no name (or, where the file
// system has no unnamed files, a temporary one that is removed). All sizes are known at the start, so a full disk is
// reported by the constructor, before any work is done.
class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;  // row-major, outermost first
    std::string type;             // "q4_k", "f32", "i32", ...
  };
  GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<Tensor> tensors, size_t alignment = 32);
  ~GgufWriter();  // without Finish: leaves nothing behind
  GgufWriter(GgufWriter&&) noexcept;
  GgufWriter(const GgufWriter&) = delete;

  // Writes the bytes of tensor `index`, in any order, each exactly once.
  void Write(size_t index, const uint8_t* data, size_t size);
  // Throws Error if a tensor is missing; else flushes to disk and gives the file its name, replacing an older one.
  void Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace edgequant
