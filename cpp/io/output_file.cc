#include "io/output_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "io/text.h"

namespace edgequant {
namespace {

constexpr size_t kPiece = size_t(64) << 20;  // between two polls; well below the 2 GiB that one write may take

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// A name in `folder` that nothing else uses: process number and a counter. A leading dot keeps it out of listings.
std::string TemporaryName(const std::string& path, int attempt) {
  static std::atomic<unsigned> counter{0};
  const size_t slash = path.rfind('/');
  const std::string base = slash == std::string::npos ? path : path.substr(slash + 1);
  return FolderOf(path) + "/." + base.substr(0, 200) + "." + std::to_string(getpid()) + "-" +
         std::to_string(counter.fetch_add(1) + unsigned(attempt)) + ".tmp";
}

// File systems without a feature answer with one of these.
bool IsUnsupported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == EISDIR || error == ENOTSUP;
}

std::string NoRoom(int error, uint64_t size) {
  if (error == EDQUOT) return "the disk quota leaves no room for its " + std::to_string(size) + " bytes";
  return "no room on the disk for its " + std::to_string(size) + " bytes";
}

}  // namespace

OutputFile::OutputFile(const std::string& path, uint64_t size, Naming naming) : path_(path), name_(ShownPath(path)) {
  if (path.empty()) Fail("the output path is empty");
  if (path.find('\0') != std::string::npos) Fail(name_, ": the path contains a zero byte");
  struct stat status;
  if (stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) Fail(name_, ": cannot be written: it is a directory");
    if (!S_ISREG(status.st_mode)) Fail(name_, ": cannot be written: it is not a regular file");
    if (char* target = realpath(path.c_str(), nullptr)) {
      path_ = target;
      std::free(target);
    }
  }
  folder_ = FolderOf(path_);
  if (stat(folder_.c_str(), &status) != 0)
    Fail(name_, ": cannot be written: folder ", ShownPath(folder_), ": ", std::strerror(errno));
  if (!S_ISDIR(status.st_mode)) Fail(name_, ": cannot be written: ", ShownPath(folder_), " is not a folder");
  if (naming == Naming::kUnnamed) OpenUnnamed();
  if (fd_ < 0) OpenNamed();
  try {
    Reserve(size);
  } catch (...) {
    close(fd_);
    if (!temporary_.empty()) unlink(temporary_.c_str());
    throw;
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void OutputFile::OpenUnnamed() {
#ifdef O_TMPFILE
  if (access("/proc/self/fd", X_OK) != 0) return;  // without it the file could not be named later
  do {
    fd_ = open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0 && !IsUnsupported(errno))
    Fail(name_, ": cannot be written: folder ", ShownPath(folder_), ": ", std::strerror(errno));
#endif
}

void OutputFile::OpenNamed() {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::string name = TemporaryName(path_, attempt);
    fd_ = open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
      temporary_ = name;
      return;
    }
    if (errno != EEXIST && errno != EINTR) break;
  }
  Fail(name_, ": cannot be written: folder ", ShownPath(folder_), ": ", std::strerror(errno));
}

void OutputFile::Reserve(uint64_t size) {
  // Asked before the limit is met: exceeding it would send SIGXFSZ.
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur)
    Fail(name_, ": cannot be written: its ", size, " bytes exceed this process's limit of ", uint64_t(limit.rlim_cur),
         " bytes per file (ulimit -f)");
  if (size > uint64_t(LLONG_MAX)) Fail(name_, ": cannot be written: a file of ", size, " bytes is too large");
  if (size == 0) return;
  int error = EOPNOTSUPP;
#ifdef __linux__
  // Not posix_fallocate: its fallback would write every block once.
  do {
    error = fallocate(fd_, 0, 0, off_t(size)) == 0 ? 0 : errno;
  } while (error == EINTR);
#endif
  if (error == 0) return;
  if (error == EFBIG) Fail(name_, ": cannot be written: a file of ", size, " bytes is too large for its file system");
  if (error == ENOSPC || error == EDQUOT) Fail(name_, ": cannot be written: ", NoRoom(error, size));
  if (!IsUnsupported(error)) Fail(name_, ": cannot be written: ", std::strerror(error));
  struct statvfs disk;
  if (fstatvfs(fd_, &disk) == 0 && disk.f_blocks > 0 && size / disk.f_frsize >= disk.f_bavail)
    Fail(name_, ": cannot be written: ", NoRoom(ENOSPC, size));
  if (ftruncate(fd_, off_t(size)) != 0) Fail(name_, ": cannot be written: ", std::strerror(errno));
}

void OutputFile::WriteAt(uint64_t offset, const uint8_t* data, size_t size, const std::function<void()>& poll) {
  while (size > 0) {
    const ssize_t written = pwrite(fd_, data, std::min(size, kPiece), off_t(offset));
    if (written < 0 && errno != EINTR) {
      const int error = errno;
      if (error == ENOSPC || error == EDQUOT) Fail(name_, ": cannot be written: the disk is full at byte ", offset);
      Fail(name_, ": cannot be written at byte ", offset, ": ", std::strerror(error));
    }
    if (written > 0) {
      data += written;
      offset += uint64_t(written);
      size -= size_t(written);
    }
    if (poll && size > 0) poll();
  }
}

void OutputFile::LinkUnnamed() {
#ifdef O_TMPFILE
  // linkat cannot replace, rename can: a new name is taken in one step, an old one by way of a temporary name.
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) == 0) return;
  for (int attempt = 0; errno == EEXIST && attempt < 100; ++attempt) {
    const std::string name = TemporaryName(path_, attempt);
    if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      temporary_ = name;
      return;
    }
  }
  Fail(name_, ": cannot be given its name: ", std::strerror(errno));
#endif
}

void OutputFile::Flush() {
  int failed;
  do {
    failed = fsync(fd_);
  } while (failed != 0 && errno == EINTR);
  if (failed != 0) Fail(name_, ": cannot be flushed to disk: ", std::strerror(errno));
}

void OutputFile::Publish() {
  if (temporary_.empty()) LinkUnnamed();
  if (temporary_.empty()) return;
  struct stat older;
  if (stat(path_.c_str(), &older) == 0) Flush();
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    Fail(name_, ": cannot be given its name: ", std::strerror(errno));
  temporary_.clear();
}

}  // namespace edgequant
