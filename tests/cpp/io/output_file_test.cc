#include "io/output_file.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "files.h"

namespace edgequant {
namespace {

const uint8_t* U8(const std::string& s) { return reinterpret_cast<const uint8_t*>(s.data()); }

using Naming = OutputFile::Naming;
class OutputFileTest : public testing::TestWithParam<Naming> {};

TEST_P(OutputFileTest, AppearsWhenPublished) {
  const TemporaryFolder folder;
  for (const char* before : {"", "an older and longer file"}) {
    const std::string path = folder / "a";
    if (*before) WriteFile(path, before);
    OutputFile file(path, 10, GetParam());
    file.WriteAt(2, U8("cd"), 2);
    file.WriteAt(0, U8("ab"), 2);
    EXPECT_EQ(std::filesystem::exists(path) ? ReadFile(path) : "", before);
    file.Publish();
    EXPECT_EQ(ReadFile(path), std::string("abcd\0\0\0\0\0\0", 10));
    EXPECT_EQ(folder.Count(), 1u);
    std::filesystem::remove(path);
  }
}

TEST_P(OutputFileTest, DiscardedWithoutPublish) {
  const TemporaryFolder folder;
  { OutputFile file(folder / "a", 10, GetParam()); }
  EXPECT_EQ(folder.Count(), 0u);
}

TEST_P(OutputFileTest, ModeFollowsUmask) {
  const TemporaryFolder folder;
  const mode_t before = umask(027);
  OutputFile file(folder / "a", 0, GetParam());
  umask(before);
  file.Publish();
  struct stat status;
  ASSERT_EQ(stat((folder / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST_P(OutputFileTest, FollowsALink) {
  const TemporaryFolder folder;
  WriteFile(folder / "real", "old");
  std::filesystem::create_symlink("real", folder / "link");
  OutputFile file(folder / "link", 3, GetParam());
  file.WriteAt(0, U8("new"), 3);
  file.Publish();
  EXPECT_EQ(ReadFile(folder / "real"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
}

TEST_P(OutputFileTest, RelativePath) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  OutputFile file("a", 1, GetParam());
  file.Publish();
  std::filesystem::current_path(before);
  EXPECT_TRUE(std::filesystem::exists(folder / "a"));
}

TEST_P(OutputFileTest, PathsThatCannotBe) {
  const TemporaryFolder folder;
  const auto make = [&](const std::string& path) { return ErrorOf([&] { OutputFile(path, 1, GetParam()); }); };
  ExpectContains(make(""), "empty");
  ExpectContains(make(folder / "no/a"), "no: No such file or directory");
  ExpectContains(make(folder.path()), "is a directory");
  ExpectContains(make("/dev/null"), "/dev/null: cannot be written: it is not a regular file");
  WriteFile(folder / "file", "");
  ExpectContains(make(folder / "file/a"), "is not a folder");
  ExpectContains(make("/proc/a"), "/proc/a: cannot be written");
}

// A process that may write files of 1000 bytes only: told before the first byte, and not by a signal.
TEST_P(OutputFileTest, LimitOfTheProcess) {
  const TemporaryFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_DFL);
    const struct rlimit limit = {1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string error = ErrorOf([&] { OutputFile(folder / "a", 1001, GetParam()); });
    _exit(error.find("limit of 1000 bytes per file") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(folder.Count(), 0u);
}

TEST_P(OutputFileTest, FullDisk) {
  const TemporaryFolder folder;
  for (const char* kind : {"tmpfs", "ramfs"}) {
    const std::string disk = folder / kind;
    std::filesystem::create_directory(disk);
    if (mount(kind, disk.c_str(), kind, 0, std::string(kind) == "tmpfs" ? "size=1m" : nullptr) != 0)
      GTEST_SKIP() << "mounting a small disk needs root";
    if (std::string(kind) == "tmpfs") {
      const std::string error = ErrorOf([&] { OutputFile(disk + "/a", 2 << 20, GetParam()); });
      ExpectContains(error, "/a: cannot be written: no room on the disk for its 2097152 bytes");
      EXPECT_TRUE(std::filesystem::is_empty(disk));
    }
    const std::string fits = ErrorOf([&] {  // ramfs cannot reserve: the other way is taken
      OutputFile file(disk + "/a", 1 << 19, GetParam());
      file.WriteAt((1 << 19) - 1, U8("x"), 1);
      file.Publish();
    });
    EXPECT_EQ(fits, "");
    EXPECT_EQ(std::filesystem::file_size(disk + "/a"), size_t(1) << 19);
    umount2(disk.c_str(), MNT_DETACH);
  }
}

// The disk fills up while a file without reserved bytes is written: a file larger than its reservation stands for it.
TEST_P(OutputFileTest, DiskFillsUpLater) {
  const TemporaryFolder folder;
  const std::string disk = folder / "disk";
  std::filesystem::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1m") != 0) GTEST_SKIP() << "mounting a small disk needs root";
  {
    OutputFile file(disk + "/a", 4096, GetParam());
    const std::string large(2 << 20, 'x');
    ExpectContains(ErrorOf([&] { file.WriteAt(0, U8(large), large.size()); }),
                   "/a: cannot be written: the disk is full at byte");
  }
  EXPECT_TRUE(std::filesystem::is_empty(disk));
  umount2(disk.c_str(), MNT_DETACH);
}

INSTANTIATE_TEST_SUITE_P(, OutputFileTest, testing::Values(Naming::kUnnamed, Naming::kTemporary),
                         [](const auto& info) { return info.param == Naming::kUnnamed ? "Unnamed" : "Temporary"; });

TEST(OutputFile, KillLeavesNothing) {
  const TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    OutputFile file(folder / "a", 1 << 20);
    file.WriteAt(0, U8("abc"), 3);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (folder.Count() != 0) GTEST_SKIP() << "this file system has no unnamed files";
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace edgequant
