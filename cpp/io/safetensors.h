// Reading safetensors files: a bounds-checked view, nothing is copied.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/mmap.h"

namespace edgequant {

struct StoredTensor {
  std::string name;
  std::string type;             // the file's own type name in lower case: "f32", "bf16", "i64", "q4_k"
  std::vector<uint64_t> shape;  // row-major, the outermost dimension first (GGUF stores them the other way round)
  const uint8_t* data;          // size bytes, inside the mapping
  size_t size;
};

class SafetensorsFile {
 public:
  // Throws Error (naming the file, and the tensor where one is at fault) unless every header field is valid, every
  // tensor lies inside the file with exactly the bytes that its shape and type need, and tensors neither overlap nor
  // leave holes (the format's own rule).
  static SafetensorsFile Open(const std::string& path);
  // The same over bytes that the caller keeps alive; `name` is used in messages.
  static SafetensorsFile Parse(const uint8_t* data, size_t size, const std::string& name);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace edgequant
