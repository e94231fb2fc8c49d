// A file that has its name only once it is complete.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace edgequant {

// Where the system has unnamed files (Linux, most file systems) nothing of an unfinished file remains, whatever ends
// the process. Elsewhere a temporary file beside `path` is removed by the destructor. A symbolic link at `path` is
// followed: the file that it names is replaced.
class OutputFile {
 public:
  enum class Naming { kUnnamed, kTemporary };  // kTemporary: as if there were no unnamed files
  // Reserves `size` bytes, all zero. Throws Error if the folder is missing or not writable, if something other than a
  // regular file is at `path`, or if the disk, a quota or a limit of the process leaves no room.
  OutputFile(const std::string& path, uint64_t size, Naming naming = Naming::kUnnamed);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Writes all of it, from any thread. `poll`, if set, is called between pieces and may throw.
  void WriteAt(uint64_t offset, const uint8_t* data, size_t size, const std::function<void()>& poll = nullptr);
  // Gives the file its name, replacing an older file in one step. Only then is it flushed to disk first: a power cut
  // shortly after may take a new file, from which nothing is lost but time, but not an older one.
  void Publish();

 private:
  void OpenUnnamed();
  void OpenNamed();
  void Reserve(uint64_t size);
  void LinkUnnamed();
  void Flush();

  std::string path_, folder_;
  std::string name_;       // of the file, in messages
  std::string temporary_;  // the name to remove, or empty
  int fd_ = -1;
};

}  // namespace edgequant
