#include "io/safetensors.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "core/error.h"
#include "io/header_json.h"
#include "io/text.h"

namespace edgequant {
namespace {

constexpr uint64_t kLongestHeader = 100'000'000;  // the reference implementation's limit

struct Type {
  const char* name;   // in the file
  const char* lower;  // in edgequant
  int bits;
};
constexpr Type kTypes[] = {
    {"BOOL", "bool", 8},       {"F4", "f4", 4},           {"F6_E2M3", "f6_e2m3", 6},         {"F6_E3M2", "f6_e3m2", 6},
    {"U8", "u8", 8},           {"I8", "i8", 8},           {"F8_E5M2", "f8_e5m2", 8},         {"F8_E4M3", "f8_e4m3", 8},
    {"F8_E8M0", "f8_e8m0", 8}, {"F8_E4M3FNUZ", "f8_e4m3fnuz", 8}, {"F8_E5M2FNUZ", "f8_e5m2fnuz", 8},
    {"I16", "i16", 16},        {"U16", "u16", 16},        {"F16", "f16", 16},                {"BF16", "bf16", 16},
    {"I32", "i32", 32},        {"U32", "u32", 32},        {"F32", "f32", 32},                {"C64", "c64", 64},
    {"F64", "f64", 64},        {"I64", "i64", 64},        {"U64", "u64", 64},
};

const Type* FindType(std::string_view name) {
  for (const Type& type : kTypes)
    if (name == type.name) return &type;
  return nullptr;
}

uint64_t LittleEndian64(const uint8_t* p) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t(p[i]) << (8 * i);
  return value;
}

// One entry of the header, before it is compared with the bytes that follow.
struct Entry {
  StoredTensor tensor;
  uint64_t begin, end;
};

// Bytes that `shape` needs. Throws Error on overflow and on types below a byte that end within one.
uint64_t ByteSize(const std::string& file, const std::string& tensor, const Type& type,
                  const std::vector<uint64_t>& shape) {
  uint64_t bits = uint64_t(type.bits);
  for (const uint64_t extent : shape)
    if (!Multiply(bits, extent, &bits)) Fail(file, ": tensor ", Quote(tensor), ": its shape has too many elements");
  if (bits % 8 != 0) Fail(file, ": tensor ", Quote(tensor), ": its ", type.name, " elements do not end with a byte");
  return bits / 8;
}

Entry ReadTensor(HeaderJson& json, const std::string& file, const std::string& name) {
  Entry entry = {};
  entry.tensor.name = name;
  const Type* type = nullptr;
  std::vector<uint64_t> offsets;
  unsigned seen = 0;
  const auto once = [&](unsigned bit, const std::string& key) {
    if (seen & bit) Fail(file, ": tensor ", Quote(name), ": ", Quote(key), " is given twice");
    seen |= bit;
  };
  json.Object([&](const std::string& key) {
    if (key == "dtype") {
      once(1, key);
      const std::string text = json.String();
      type = FindType(text);
      if (type == nullptr) Fail(file, ": tensor ", Quote(name), ": unknown type ", Quote(text));
    } else if (key == "shape") {
      once(2, key);
      entry.tensor.shape = json.Integers();
    } else if (key == "data_offsets") {
      once(4, key);
      offsets = json.Integers();
      if (offsets.size() != 2)
        Fail(file, ": tensor ", Quote(name), ": data_offsets has ", offsets.size(), " numbers, not 2");
    } else {
      Fail(file, ": tensor ", Quote(name), ": unknown field ", Quote(key));
    }
  });
  for (const auto& [bit, key] : {std::pair(1u, "dtype"), std::pair(2u, "shape"), std::pair(4u, "data_offsets")})
    if (!(seen & bit)) Fail(file, ": tensor ", Quote(name), ": ", key, " is missing");

  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.end < entry.begin)
    Fail(file, ": tensor ", Quote(name), ": ends (", entry.end, ") before it begins (", entry.begin, ")");
  const uint64_t need = ByteSize(file, name, *type, entry.tensor.shape);
  if (need != entry.end - entry.begin)
    Fail(file, ": tensor ", Quote(name), ": its shape needs ", need, " bytes, its offsets give ",
         entry.end - entry.begin);
  entry.tensor.type = type->lower;
  return entry;
}

}  // namespace

SafetensorsFile SafetensorsFile::Open(const std::string& path) {
  const auto file = MappedFile::Open(path);
  SafetensorsFile out = Parse(file->data(), file->size(), ShownPath(path));
  out.file_ = file;
  return out;
}

SafetensorsFile SafetensorsFile::Parse(const uint8_t* data, size_t size, const std::string& name) {
  if (size < 8) Fail(name, ": not a safetensors file: ", size, " bytes, the header's length alone has 8");
  const uint64_t length = LittleEndian64(data);
  if (length > kLongestHeader)
    Fail(name, ": not a safetensors file: a header of ", length, " bytes is over the format's limit of ",
         kLongestHeader);
  if (length > size - 8)
    Fail(name, ": cut off: the header has ", length, " bytes, the file holds ", size - 8, " of them");
  const std::string_view header(reinterpret_cast<const char*>(data) + 8, size_t(length));
  if (header.empty() || header[0] != '{') Fail(name, ": not a safetensors file: the header does not begin with {");
  if (!IsUtf8(header)) Fail(name, ": the header is not valid UTF-8");

  SafetensorsFile out;
  std::vector<Entry> entries;
  std::unordered_set<std::string> names;
  HeaderJson json(header, name);
  json.Object([&](const std::string& key) {
    if (!names.insert(key).second) Fail(name, ": ", Quote(key), " is in the header twice");
    if (key != "__metadata__") {
      entries.push_back(ReadTensor(json, name, key));
      return;
    }
    std::unordered_set<std::string> keys;
    json.Object([&](const std::string& fact) {
      if (!keys.insert(fact).second) Fail(name, ": ", Quote(fact), " is in the metadata twice");
      out.metadata_.emplace_back(fact, json.String());
    });
  });
  json.ExpectEnd();

  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const uint64_t available = size - 8 - length;
  uint64_t at = 0;
  for (Entry& entry : entries) {
    StoredTensor& tensor = entry.tensor;
    if (entry.begin < at) Fail(name, ": tensor ", Quote(tensor.name), ": overlaps the tensor before it");
    if (entry.end > available)
      Fail(name, ": tensor ", Quote(tensor.name), ": ends at byte ", entry.end, ", the file has ", available,
           " bytes of tensors");
    if (entry.begin > at)
      Fail(name, ": tensor ", Quote(tensor.name), ": ", entry.begin - at, " bytes before it belong to no tensor");
    at = entry.end;
    tensor.offset = size_t(8 + length + entry.begin);
    tensor.data = data + tensor.offset;
    tensor.size = size_t(entry.end - entry.begin);
    out.tensors_.push_back(std::move(tensor));
  }
  if (at != available) Fail(name, ": ", available - at, " bytes after the last tensor belong to no tensor");
  return out;
}

}  // namespace edgequant
