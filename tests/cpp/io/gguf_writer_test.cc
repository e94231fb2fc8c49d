#include "files.h"
#include "gguf_bytes.h"
#include "io/gguf.h"

namespace edgequant {
namespace {

using namespace gguf_bytes;

const uint8_t* U8(const std::string& s) { return reinterpret_cast<const uint8_t*>(s.data()); }

GgufValue Text1(const std::string& s) { return {GgufType::kString, false, {}, {s}, {}}; }
GgufValue U32(uint32_t n) {
  return {GgufType::kU32, false, {uint8_t(n), uint8_t(n >> 8), uint8_t(n >> 16), uint8_t(n >> 24)}, {}, {}};
}

// The layout of llama.cpp: infos in order, offsets in order, every tensor padded, also the last.
TEST(GgufWriter, LayoutByteForByte) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.gguf";
  const GgufMetadata metadata = {
      {"general.architecture", Text1("llama")},
      {"ids", {GgufType::kI32, true, {1, 0, 0, 0, 2, 0, 0, 0}, {}, {}}},
      {"tokens", {GgufType::kString, true, {}, {"a", "bc"}, {}}},
      {"nested",
       {GgufType::kArray, true, {}, {}, {{GgufType::kU8, true, {7}, {}, {}}, {GgufType::kString, true, {}, {}, {}}}}}};
  GgufWriter writer(path, metadata, {{"q", {2, 32}, "q4_0"}, {"v", {3}, "f32"}, {"s", {}, "i8"}});
  writer.Write(1, U8("abcdefghijkl"), 12);
  writer.Write(0, U8(std::string(36, 'q')), 36);
  writer.Write(2, U8("s"), 1);
  EXPECT_EQ(folder.Count(), 0u) << "the file has its name before it is finished";
  writer.Finish();
  const std::string expected =
      File({Key("general.architecture", 8, Text("llama")), Key("ids", 9, Array(5, 2, Le(1) + Le(2))),
            Key("tokens", 9, Array(8, 2, Text("a") + Text("bc"))),
            Key("nested", 9, Array(9, 2, Array(0, 1, "\7") + Array(8, 0, "")))},
           {Info("q", {32, 2}, 2, 0), Info("v", {3}, 0, 64), Info("s", {}, 24, 96)},
           std::string(36, 'q') + std::string(28, '\0') + "abcdefghijkl" + std::string(20, '\0') + "s" +
               std::string(31, '\0'));
  EXPECT_EQ(ReadFile(path), expected);
  EXPECT_EQ(writer.file_size(), expected.size());
  EXPECT_EQ(folder.Count(), 1u);
}

TEST(GgufWriter, AlignmentIsKeptInTheFile) {
  const TemporaryFolder folder;
  for (const size_t alignment : {8, 32, 4096}) {
    const std::string path = folder / (std::to_string(alignment) + ".gguf");
    GgufWriter writer(path, {{"a", U32(1)}}, {{"x", {1}, "i8"}, {"y", {1}, "i8"}}, alignment);
    writer.Write(0, U8("x"), 1);
    writer.Write(1, U8("y"), 1);
    writer.Finish();
    const GgufFile file = GgufFile::Open(path);
    EXPECT_EQ(file.alignment(), alignment);
    EXPECT_EQ(file.tensors()[1].offset - file.tensors()[0].offset, alignment);
    EXPECT_EQ(*file.tensors()[1].data, 'y');
    // What was read is written again as it was.
    GgufWriter again(folder / "again", file.metadata(), {{"x", {1}, "i8"}, {"y", {1}, "i8"}});
    again.Write(0, U8("x"), 1);
    again.Write(1, U8("y"), 1);
    again.Finish();
    EXPECT_EQ(ReadFile(path), ReadFile(folder / "again"));
  }
  const auto make = [&](const GgufMetadata& metadata, size_t alignment) {
    return ErrorOf([&] { GgufWriter(folder / "b", metadata, {}, alignment); });
  };
  ExpectContains(make({{"general.alignment", U32(64)}}, 32),
                 "alignment is 32, but general.alignment in the metadata is 64");
  ExpectContains(make({{"general.alignment", U32(48)}}, 0), "not a power of two");
  ExpectContains(make({}, 48), "not a power of two");
  ExpectContains(make({{"general.alignment", Text1("32")}}, 0), "not a u32");
}

TEST(GgufWriter, RefusesWhatLlamaCppWouldNotLoad) {
  const TemporaryFolder folder;
  const auto make = [&](std::vector<GgufWriter::Tensor> tensors) {
    return ErrorOf([&] { GgufWriter(folder / "a.gguf", {}, std::move(tensors)); });
  };
  ExpectContains(make({{std::string(64, 'n'), {1}, "f32"}}), "64 bytes, llama.cpp allows 63");
  EXPECT_EQ(make({{std::string(63, 'n'), {1}, "f32"}}), "");
  ExpectContains(make({{"", {1}, "f32"}}), "not a valid name");
  ExpectContains(make({{"\xFF", {1}, "f32"}}), "not a valid name");
  ExpectContains(make({{"a", {1}, "f32"}, {"a", {1}, "f32"}}), "\"a\" is given twice");
  ExpectContains(make({{"a", {1, 1, 1, 1, 1}, "f32"}}), "5 dimensions");
  ExpectContains(make({{"a", {2, 33}, "q4_0"}}), "rows of 33 weights");
  ExpectContains(make({{"a", {1}, "f12"}}), "no type \"f12\"");
  ExpectContains(make({{"a", {uint64_t(1) << 40, uint64_t(1) << 40}, "f32"}}), "too many elements");
  ExpectContains(make({{"a", {uint64_t(1) << 59}, "f32"}, {"b", {uint64_t(1) << 59}, "f32"}}), "too large");
  const auto metadata = [&](const GgufMetadata& facts) {
    return ErrorOf([&] { GgufWriter(folder / "a.gguf", facts, {}); });
  };
  ExpectContains(metadata({{"k", U32(1)}, {"k", U32(1)}}), "\"k\" is given twice");
  ExpectContains(metadata({{"", U32(1)}}), "not a valid key");
  ExpectContains(metadata({{"k", {GgufType::kU32, false, {1, 2}, {}, {}}}}), "exactly one value");
  ExpectContains(metadata({{"k", {GgufType::kU32, true, {1, 2}, {}, {}}}}), "not whole numbers");
  ExpectContains(metadata({{"k", {GgufType::kArray, true, {}, {}, {U32(1)}}}}), "array of arrays");
  EXPECT_EQ(folder.Count(), 0u);
}

TEST(GgufWriter, EachTensorOnceAndWhole) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.gguf";
  GgufWriter writer(path, {}, {{"a", {4}, "i8"}, {"b", {0, 4}, "f32"}});
  ExpectContains(ErrorOf([&] { writer.Write(2, U8("1234"), 4); }), "tensor 2 of 2");
  ExpectContains(ErrorOf([&] { writer.Write(0, U8("123"), 3); }), "\"a\" has 4 bytes, not 3");
  ExpectContains(ErrorOf([&] { writer.Finish(); }), "\"a\" was not written");
  writer.Write(0, U8("1234"), 4);
  ExpectContains(ErrorOf([&] { writer.Write(0, U8("1234"), 4); }), "\"a\" is written twice");
  ExpectContains(ErrorOf([&] { writer.Finish(); }), "\"b\" was not written");
  writer.Write(1, nullptr, 0);
  writer.Finish();
  ExpectContains(ErrorOf([&] { writer.Finish(); }), "finished");
  ExpectContains(ErrorOf([&] { writer.Write(0, U8("1234"), 4); }), "finished");
  EXPECT_EQ(GgufFile::Open(path).tensors().size(), 2u);
}

TEST(GgufWriter, PartsInAnyOrder) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.gguf";
  GgufWriter writer(path, {}, {{"a", {4}, "i8"}, {"b", {4}, "i8"}});
  ExpectContains(ErrorOf([&] { writer.WritePart(0, 0, U8("12"), 2); }), "not being written");
  writer.Begin(0, 4);
  ExpectContains(ErrorOf([&] { writer.Begin(0, 4); }), "written twice");
  ExpectContains(ErrorOf([&] { writer.WritePart(0, 3, U8("12"), 2); }), "beyond its end");
  writer.WritePart(0, 2, U8("34"), 2);
  ExpectContains(ErrorOf([&] { writer.End(0); }), "2 of its 4 bytes");
  writer.WritePart(0, 0, U8("12"), 2);
  writer.End(0);
  writer.Begin(1, 4);
  writer.Abort(1);
  ExpectContains(ErrorOf([&] { writer.Finish(); }), "\"b\" was not written");
  writer.Write(1, U8("5678"), 4);
  writer.Finish();
  const GgufFile file = GgufFile::Open(path);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.tensors()[0].data), 4), "1234");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.tensors()[1].data), 4), "5678");
}

TEST(GgufWriter, WithoutFinishNothingRemains) {
  const TemporaryFolder folder;
  WriteFile(folder / "old.gguf", "old");
  {
    GgufWriter writer(folder / "old.gguf", {}, {{"a", {4}, "i8"}});
    writer.Write(0, U8("1234"), 4);
    GgufWriter other(folder / "new.gguf", {}, {{"a", {4}, "i8"}});
    GgufWriter moved = std::move(other);
    moved.Write(0, U8("1234"), 4);
  }
  EXPECT_EQ(ReadFile(folder / "old.gguf"), "old");
  EXPECT_EQ(folder.Count(), 1u);
}

TEST(GgufWriter, PollMayStopAndTheTensorIsWrittenAgain) {
  const TemporaryFolder folder;
  const std::string large((size_t(64) << 20) + 5, 'x');
  GgufWriter writer(folder / "a.gguf", {}, {{"a", {large.size()}, "i8"}});
  ExpectContains(ErrorOf([&] { writer.Write(0, U8(large), large.size(), [] { Fail("stop"); }); }), "stop");
  ExpectContains(ErrorOf([&] { writer.Finish(); }), "not written");
  int polls = 0;
  writer.Write(0, U8(large), large.size(), [&] { ++polls; });
  EXPECT_GE(polls, 1);
  writer.Finish();
  EXPECT_EQ(GgufFile::Open(folder / "a.gguf").tensors()[0].size, large.size());
}

TEST(GgufWriter, ReplacesItsOwnSourceWhileThatIsMapped) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.gguf";
  for (const char c : {'1', '2'}) {
    std::vector<GgufFile> source;
    if (c == '2') source.push_back(GgufFile::Open(path));
    GgufWriter writer(path, {}, {{"a", {4096 * 4}, "i8"}});
    writer.Write(0, U8(std::string(4096 * 4, c)), 4096 * 4);
    writer.Finish();
    for (const GgufFile& file : source)
      for (size_t i = 0; i < file.tensors()[0].size; ++i) ASSERT_EQ(file.tensors()[0].data[i], '1');
    EXPECT_EQ(*GgufFile::Open(path).tensors()[0].data, c);
  }
  EXPECT_EQ(folder.Count(), 1u);
}

}  // namespace
}  // namespace edgequant
