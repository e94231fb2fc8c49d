#include "io/safetensors.h"

#include "files.h"

namespace edgequant {
namespace {

std::string Bytes(const std::string& header, const std::string& data = "") {
  std::string out;
  for (int i = 0; i < 8; ++i) out += char(uint64_t(header.size()) >> (8 * i));
  return out + header + data;
}

SafetensorsFile Parse(const std::string& bytes) {
  return SafetensorsFile::Parse(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "test");
}

TEST(Safetensors, TensorsInTheOrderOfTheirBytes) {
  const std::string bytes = Bytes(
      R"({"late" : {"dtype":"I64","shape":[],"data_offsets":[12,20]},)"
      R"("__metadata__":{"format":"pt","":""}, "first":{"data_offsets":[0,12],"shape":[2,3],"dtype":"BF16"}}   )",
      "abcdefghijklABCDEFGH");
  const SafetensorsFile file = Parse(bytes);
  ASSERT_EQ(file.tensors().size(), 2u);
  const StoredTensor& first = file.tensors()[0];
  EXPECT_EQ(first.name, "first");
  EXPECT_EQ(first.type, "bf16");
  EXPECT_EQ(first.shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(std::string(first.data, first.data + first.size), "abcdefghijkl");
  EXPECT_EQ(first.offset, bytes.size() - 20);
  const StoredTensor& late = file.tensors()[1];
  EXPECT_TRUE(late.shape.empty());
  EXPECT_EQ(std::string(late.data, late.data + late.size), "ABCDEFGH");
  ASSERT_EQ(file.metadata().size(), 2u);
  EXPECT_EQ(file.metadata()[0], (std::pair<std::string, std::string>("format", "pt")));
}

TEST(Safetensors, Escapes) {
  const SafetensorsFile file =
      Parse(Bytes(R"({"__metadata__":{"\"\\\/\b\f\n\r\t":"\u0041\u00fC\u20AC\uD83D\uDE00"}})"));
  ASSERT_EQ(file.metadata().size(), 1u);
  EXPECT_EQ(file.metadata()[0].first, "\"\\/\b\f\n\r\t");
  EXPECT_EQ(file.metadata()[0].second, "A\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(Safetensors, EveryType) {
  const std::pair<const char*, int> types[] = {
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
  for (const auto& [type, bits] : types) {
    const size_t size = size_t(bits) * 8 / 8;  // eight elements
    const std::string header = std::string(R"({"a":{"dtype":")") + type + R"(","shape":[2,4],"data_offsets":[0,)" +
                               std::to_string(size) + "]}}";
    EXPECT_EQ(Parse(Bytes(header, std::string(size, 'x'))).tensors()[0].size, size) << type;
    ExpectContains(ErrorOf([&] { Parse(Bytes(header, std::string(size - 1, 'x'))); }), "ends at byte");
  }
}

TEST(Safetensors, EmptyTensorsAndFiles) {
  EXPECT_TRUE(Parse(Bytes("{}")).tensors().empty());
  const SafetensorsFile file = Parse(Bytes(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                                           R"("b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                           R"("c":{"dtype":"F64","shape":[3,0],"data_offsets":[1,1]}})", "x"));
  EXPECT_EQ(file.tensors().size(), 3u);
}

// No prefix of a valid file is valid: whatever is cut off, something that was promised is missing.
TEST(Safetensors, EveryPrefixIsRefused) {
  const std::string bytes =
      Bytes(R"({"__metadata__":{"k":"\u20ac"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "12345678");
  Parse(bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<char> exact(bytes.begin(),
                                  bytes.begin() + std::ptrdiff_t(size));  // so that the sanitizer sees a read beyond
    EXPECT_THROW(SafetensorsFile::Parse(reinterpret_cast<const uint8_t*>(exact.data()), size, "test"), Error) << size;
  }
}

TEST(Safetensors, OpenKeepsTheFileMapped) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  WriteFile(path, Bytes(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "xyz"));
  const SafetensorsFile file = SafetensorsFile::Open(path);
  std::filesystem::remove(path);
  EXPECT_EQ(std::string(file.tensors()[0].data, file.tensors()[0].data + 3), "xyz");
}

TEST(Mmap, WhatIsNoFile) {
  const TemporaryFolder folder;
  ExpectContains(ErrorOf([&] { MappedFile::Open(folder / "none"); }), "none: cannot be opened: No such file");
  ExpectContains(ErrorOf([&] { MappedFile::Open(folder.path()); }), "is a directory");
  ExpectContains(ErrorOf([&] { MappedFile::Open("/dev/null"); }), "/dev/null: is not a regular file");
  const std::string pipe = folder / "pipe";
  ASSERT_EQ(std::system(("mkfifo " + pipe).c_str()), 0);
  ExpectContains(ErrorOf([&] { MappedFile::Open(pipe); }), "is not a regular file");
  WriteFile(folder / "empty", "");
  EXPECT_EQ(MappedFile::Open(folder / "empty")->size(), 0u);
}

}  // namespace
}  // namespace edgequant
