// Every broken file of tests/hostile is refused by a sentence that names it.
#include <sstream>

#include "files.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace edgequant {
namespace {

struct Case {
  std::string file, words;
};

// The rows of the README's table: | `file` | what is wrong | `words` |
std::vector<Case> Cases() {
  std::vector<Case> cases;
  std::istringstream lines(ReadFile(EDGEQUANT_HOSTILE "/README.md"));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    const size_t file_end = line.find("` | ", 3), words = line.rfind(" | `") + 4;
    cases.push_back({line.substr(3, file_end - 3), line.substr(words, line.rfind("` |") - words)});
  }
  return cases;
}

TEST(Hostile, EveryFileIsRefused) {
  const std::vector<Case> cases = Cases();
  EXPECT_GE(cases.size(), 100u);
  for (const Case& c : cases) {
    const std::string path = EDGEQUANT_HOSTILE "/" + c.file;
    const std::string error = ErrorOf([&] {
      if (c.file.ends_with(".gguf")) GgufFile::Open(path);
      else SafetensorsFile::Open(path);
    });
    EXPECT_EQ(error.rfind(path + ": ", 0), 0u) << c.file << ": " << (error.empty() ? "was accepted" : error);
    ExpectContains(error, c.words);
  }
}

}  // namespace
}  // namespace edgequant
