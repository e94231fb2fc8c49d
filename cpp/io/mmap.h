// A read-only memory-mapped file.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace edgequant {

// The mapping shows the file as it is. Replacing the file by another of the same name (as GgufWriter does) leaves it
// alone, but a file that another program shortens in place cannot be read beyond its new end: the system then ends the
// process with SIGBUS, as for every mapped file.
class MappedFile {
 public:
  // Throws Error naming the path if it cannot be opened or is not a regular file. An empty file maps to size 0.
  static std::shared_ptr<const MappedFile> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // Gives the whole pages of a part that is not needed for now back to the system; a later access reads the file again.
  void Forget(const uint8_t* data, size_t size) const;

 private:
  MappedFile() = default;
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace edgequant
