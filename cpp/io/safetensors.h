// Reading safetensors files: a bounds-checked view, nothing is copied.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/mmap.h"
#include "io/stored.h"

namespace edgequant {

// The file: the header's length (u64, little-endian), the header (JSON), the tensors' bytes. As strict as the reference
// implementation, and stricter where a file could be read in two ways: a name given twice and an unknown field are
// refused.
class SafetensorsFile {
 public:
  // Throws Error (naming the file, and the tensor where one is at fault) unless every header field is valid, every
  // tensor lies inside the file with exactly the bytes that its shape and type need, and tensors neither overlap nor
  // leave holes (the format's own rule).
  static SafetensorsFile Open(const std::string& path);
  // The same over bytes that the caller keeps alive; `name` is used in messages.
  static SafetensorsFile Parse(const uint8_t* data, size_t size, const std::string& name);

  // In the order of their bytes.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  // The mapping that the tensors point into; null after Parse.
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace edgequant
