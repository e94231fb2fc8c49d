#include "io/gguf.h"

#include "files.h"
#include "gguf_bytes.h"
#include "io/gguf_types.h"

namespace edgequant {
namespace {

using namespace gguf_bytes;

GgufFile Parse(const std::string& bytes) {
  return GgufFile::Parse(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "test");
}

std::string Sample(uint32_t version = 3) {
  return File({Key("general.architecture", 8, Text("llama")), Key("u8", 0, "\x07"), Key("f", 6, Le(0x3FC00000u)),
               Key("flag", 7, "\x01"), Key("tokens", 9, Array(8, 3, Text("a") + Text("") + Text("\xFF"))),
               Key("ids", 9, Array(5, 2, Le(int32_t(-1)) + Le(int32_t(5)))),
               Key("nested", 9, Array(9, 2, Array(0, 2, "xy") + Array(8, 1, Text("z"))))},
              {Info("q", {64, 2}, 2, 96), Info("v", {3}, 0, 0), Info("s", {}, 27, 32), Info("none", {32, 0}, 8, 96)},
              "abcdefghijkl" + std::string(20, '\0') + "12345678" + std::string(56, '\0') + std::string(72, 'q'),
              version);
}

TEST(Gguf, ReadsWhatTheFileSays) {
  for (const uint32_t version : {2u, 3u}) {
    const std::string bytes = Sample(version);
    const GgufFile file = Parse(bytes);
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.alignment(), 32u);
    ASSERT_EQ(file.metadata().size(), 7u);
    const auto value = [&](size_t i) -> const GgufValue& { return file.metadata()[i].second; };
    EXPECT_EQ(file.metadata()[0].first, "general.architecture");
    EXPECT_EQ(value(0).strings, std::vector<std::string>{"llama"});
    EXPECT_FALSE(value(0).is_array);
    EXPECT_EQ(value(1).numbers, std::vector<uint8_t>{7});
    EXPECT_EQ(value(2).type, GgufType::kF32);
    EXPECT_EQ(value(2).numbers, (std::vector<uint8_t>{0, 0, 0xC0, 0x3F}));
    EXPECT_EQ(value(4).strings, (std::vector<std::string>{"a", "", "\xFF"}));
    EXPECT_TRUE(value(5).is_array);
    EXPECT_EQ(value(5).numbers, (std::vector<uint8_t>{255, 255, 255, 255, 5, 0, 0, 0}));
    ASSERT_EQ(value(6).arrays.size(), 2u);
    EXPECT_EQ(value(6).arrays[1].strings, std::vector<std::string>{"z"});

    ASSERT_EQ(file.tensors().size(), 4u);
    const StoredTensor& q = file.tensors()[0];
    EXPECT_EQ(q.type, "q4_0");
    EXPECT_EQ(q.shape, (std::vector<uint64_t>{2, 64}));
    EXPECT_EQ(std::string(q.data, q.data + q.size), std::string(72, 'q'));
    EXPECT_EQ(q.offset, bytes.size() - 72);
    const StoredTensor& v = file.tensors()[1];
    EXPECT_EQ(std::string(v.data, v.data + v.size), "abcdefghijkl");
    EXPECT_EQ(file.tensors()[2].size, 8u);
    EXPECT_TRUE(file.tensors()[2].shape.empty());
    EXPECT_EQ(file.tensors()[3].size, 0u);
  }
}

TEST(Gguf, AlignmentFromMetadata) {
  const std::string key = Key("general.alignment", 4, Le(uint32_t(256)));
  const GgufFile file =
      Parse(File({key}, {Info("a", {4}, 0, 0), Info("b", {1}, 24, 256)}, std::string(257, 'x'), 3, 256));
  EXPECT_EQ(file.alignment(), 256u);
  EXPECT_EQ(file.tensors()[1].offset, 512u);
  ExpectContains(ErrorOf([&] { Parse(File({key}, {Info("a", {4}, 0, 32)}, std::string(64, 'x'), 3, 256)); }),
                 "alignment 256");
}

TEST(Gguf, VocabularyWithoutTensorsNeedsNoPadding) {
  EXPECT_TRUE(Parse(File({Key("a", 0, "x")}, {}, "")).tensors().empty());
}

TEST(Gguf, EveryPrefixIsRefused) {
  const std::string bytes = Sample();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<char> exact(bytes.begin(), bytes.begin() + std::ptrdiff_t(size));
    EXPECT_THROW(GgufFile::Parse(reinterpret_cast<const uint8_t*>(exact.data()), size, "test"), Error) << size;
  }
}

// Any byte of the header may be anything: the answer is a file or an Error.
TEST(Gguf, EveryByteOfTheHeaderChanged) {
  const std::string bytes = Sample();
  for (size_t at = 0; at < bytes.size() - 160; ++at)
    for (const int flip : {1, 0x80, 0xFF}) {
      std::string changed = bytes;
      changed[at] = char(changed[at] ^ flip);
      const std::vector<char> exact(changed.begin(), changed.end());
      try {
        const GgufFile file = GgufFile::Parse(reinterpret_cast<const uint8_t*>(exact.data()), exact.size(), "test");
        for (const StoredTensor& t : file.tensors())
          if (t.size > 0) {
            ASSERT_GE(t.data, reinterpret_cast<const uint8_t*>(exact.data()));
            ASSERT_LE(t.data + t.size, reinterpret_cast<const uint8_t*>(exact.data()) + exact.size());
          }
      } catch (const Error&) {
      }
    }
}

TEST(Gguf, EveryTypeHasItsNameAndNumber) {
  int count = 0;
  for (uint32_t number = 0; number < 100; ++number) {
    GgufTensorType type, again;
    if (!FindTensorType(number, &type)) continue;
    ++count;
    EXPECT_FALSE(IsRemovedTensorType(number));
    ASSERT_TRUE(FindTensorType(type.name, &again)) << type.name;
    EXPECT_EQ(again.number, number) << type.name;
    const std::string data(size_t(type.bytes) * 3, 'x');
    EXPECT_EQ(Parse(File({}, {Info("a", {type.block, 3}, number, 0)}, data)).tensors()[0].size, data.size())
        << type.name;
  }
  EXPECT_GE(count, 32);
  EXPECT_FALSE(FindTensorType("i2_s", nullptr));
}

}  // namespace
}  // namespace edgequant
