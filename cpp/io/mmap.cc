#include "io/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "io/text.h"

namespace edgequant {

std::shared_ptr<const MappedFile> MappedFile::Open(const std::string& path) {
  const std::string name = ShownPath(path);
  if (path.find('\0') != std::string::npos) Fail(name, ": the path contains a zero byte");
  // Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
  int fd;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) Fail(name, ": cannot be opened: ", std::strerror(errno));
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};

  struct stat status;
  if (fstat(fd, &status) != 0) Fail(name, ": cannot be examined: ", std::strerror(errno));
  if (S_ISDIR(status.st_mode)) Fail(name, ": is a directory, not a file");
  if (!S_ISREG(status.st_mode)) Fail(name, ": is not a regular file");
  if (uint64_t(status.st_size) > std::numeric_limits<size_t>::max() / 2) Fail(name, ": too large to be mapped");

  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  const size_t size = size_t(status.st_size);
  if (size > 0) {
    void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) Fail(name, ": cannot be mapped: ", std::strerror(errno));
    file->data_ = static_cast<const uint8_t*>(data);
    file->size_ = size;
  }
  return file;
}

void MappedFile::Forget(const uint8_t* data, size_t size) const {
  const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE)), address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + page - 1) / page * page, end = (address + size) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace edgequant
