// Reading and writing GGUF files (versions 2 and 3, little-endian), as llama.cpp and the gguf package define them.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/mmap.h"
#include "io/stored.h"

namespace edgequant {

// GGUF's numbers for the types of metadata values.
enum class GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// Bytes of one number; 0 for strings, arrays and unknown types.
size_t SizeOf(GgufType type);

// One metadata value. Scalars are arrays of one. Numbers stay as the file's little-endian bytes in `numbers`.
struct GgufValue {
  GgufType type = GgufType::kU32;  // of the elements
  bool is_array = false;
  std::vector<uint8_t> numbers;         // numeric and bool types
  std::vector<std::string>
      strings;  // kString; any bytes: GGUF promises UTF-8, but tokenizers have been seen to break it
  std::vector<GgufValue> arrays;        // kArray: nested arrays
};

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

class GgufFile {
 public:
  // Throws Error unless every count, length, type and offset is valid: names are unique, tensors lie inside the file,
  // are aligned and do not overlap, strings end, arrays fit. Nesting is limited.
  static GgufFile Open(const std::string& path);
  // The same over bytes that the caller keeps alive; `name` is used in messages.
  static GgufFile Parse(const uint8_t* data, size_t size, const std::string& name);

  uint32_t version() const { return version_; }
  size_t alignment() const { return alignment_; }
  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // The mapping that the tensors point into; null after Parse.
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  uint32_t version_ = 0;
  size_t alignment_ = 32;
  GgufMetadata metadata_;
  std::vector<StoredTensor> tensors_;
};

// Writes a GGUF file (version 3) that appears at `path` only when Finish() succeeds: until then it has no name (or,
// where the file system has no unnamed files, a temporary one that is removed). All sizes are known at the start, so a
// full disk is reported by the constructor, before any work is done. An older file at `path` may be mapped meanwhile.
class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;  // row-major, outermost first
    std::string type;             // "q4_k", "f32", "i32", ...
  };
  // alignment: a power of two; 0 takes general.alignment from the metadata, or 32. Throws Error for what llama.cpp
  // would not load (names of 64 bytes and more, over 4 dimensions, rows that do not divide the type's block) and for
  // whatever keeps the file from being made.
  GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<Tensor> tensors, size_t alignment = 0);
  ~GgufWriter();  // without Finish: leaves nothing behind
  GgufWriter(GgufWriter&&) noexcept;
  GgufWriter& operator=(GgufWriter&&) noexcept;

  // Writes the bytes of tensor `index`, in any order, each exactly once; different tensors from any threads at once.
  // `poll`, if set, is called between pieces of the data and may throw; the tensor can then be written again.
  void Write(size_t index, const uint8_t* data, size_t size, const std::function<void()>& poll = nullptr);
  // The same in parts: Begin, all bytes by WritePart in any order and from any threads, then End. After an error Abort
  // lets the tensor be written again.
  void Begin(size_t index, uint64_t size);
  void WritePart(size_t index, uint64_t at, const uint8_t* data, size_t size);
  void End(size_t index);
  void Abort(size_t index) noexcept;
  // Throws Error if a tensor is missing; else gives the file its name, replacing an older one.
  void Finish();

  uint64_t file_size() const;
  // Of the file that these would make.
  static uint64_t SizeOf(const GgufMetadata& metadata, const std::vector<Tensor>& tensors);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace edgequant
