#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_set>

#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_types.h"
#include "io/text.h"

namespace edgequant {
namespace {

constexpr int kDeepestArray = 8;  // no known file nests at all

// Reads numbers and strings in order. Every length is compared with what is left before it is used.
class Cursor {
 public:
  Cursor(const uint8_t* data, size_t size, const std::string& name) : data_(data), size_(size), name_(name) {}

  size_t at() const { return at_; }
  size_t left() const { return size_ - at_; }

  const uint8_t* Bytes(uint64_t count, const std::string& what) {
    if (count > left())
      Fail(name_, ": cut off at byte ", size_, ": ", what, " needs ", count, " bytes from byte ", at_, " on");
    const uint8_t* begin = data_ + at_;
    at_ += size_t(count);
    return begin;
  }

  template <class T>
  T Number(const std::string& what) {
    const uint8_t* p = Bytes(sizeof(T), what);
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t(p[i]) << (8 * i);
    return T(value);
  }

  std::string_view String(const std::string& what) {
    const uint64_t length = Number<uint64_t>(what);
    if (length > left())
      Fail(name_, ": ", what, " is a string of ", length, " bytes at byte ", at_, ", the file has ", left(), " more");
    return {reinterpret_cast<const char*>(Bytes(length, what)), size_t(length)};
  }

  // A count of things that take at least `smallest` bytes each.
  uint64_t Count(uint64_t smallest, const std::string& what) {
    const uint64_t count = Number<uint64_t>(what);
    if (count > left() / smallest)
      Fail(name_, ": ", what, " is ", count, ", more than the ", left(), " bytes that follow can hold");
    return count;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
  const std::string& name_;
};

// A key or a tensor's name.
std::string ReadName(Cursor& in, const std::string& file, const std::string& what) {
  const std::string_view text = in.String(what);
  if (text.empty()) Fail(file, ": ", what, " is empty");
  if (!IsUtf8(text)) Fail(file, ": ", what, " is not valid UTF-8: ", Quote(text));
  if (text.find('\0') != std::string_view::npos) Fail(file, ": ", what, " contains a zero byte: ", Quote(text));
  return std::string(text);
}

void CheckBools(const std::vector<uint8_t>& bytes, const std::string& file, const std::string& what) {
  for (const uint8_t byte : bytes)
    if (byte > 1) Fail(file, ": ", what, ": ", int(byte), " is not a bool");
}

GgufValue ReadValue(Cursor& in, GgufType type, int depth, const std::string& file, const std::string& what) {
  GgufValue value;
  value.type = type;
  uint64_t count = 1;
  if (type == GgufType::kArray) {
    if (depth >= kDeepestArray) Fail(file, ": ", what, ": arrays nest deeper than ", kDeepestArray);
    value.is_array = true;
    value.type = GgufType(in.Number<uint32_t>(what));
    // An array within an array has at least its type and count, a string its length.
    const uint64_t smallest = value.type == GgufType::kArray    ? 12
                              : value.type == GgufType::kString ? 8
                                                                : SizeOf(value.type);
    if (smallest == 0) Fail(file, ": ", what, ": unknown type ", uint32_t(value.type), " of array elements");
    count = in.Count(smallest, what + ": the number of array elements");
  }
  if (value.type == GgufType::kString) {
    value.strings.reserve(count);
    for (uint64_t i = 0; i < count; ++i) value.strings.emplace_back(in.String(what));
  } else if (value.type == GgufType::kArray) {
    for (uint64_t i = 0; i < count; ++i) value.arrays.push_back(ReadValue(in, GgufType::kArray, depth + 1, file, what));
  } else {
    const size_t size = SizeOf(value.type);
    if (size == 0) Fail(file, ": ", what, ": unknown type ", uint32_t(value.type));
    const uint8_t* bytes = in.Bytes(count * size, what);
    value.numbers.assign(bytes, bytes + count * size);
    if (value.type == GgufType::kBool) CheckBools(value.numbers, file, what);
  }
  return value;
}

uint32_t ReadVersion(Cursor& in, const std::string& file) {
  static constexpr char kMagic[4] = {'G', 'G', 'U', 'F'};
  if (in.left() < 8 || std::memcmp(in.Bytes(4, "the magic"), kMagic, 4) != 0)
    Fail(file, ": not a GGUF file: it does not begin with \"GGUF\"");
  const uint32_t version = in.Number<uint32_t>("the version");
  if (version == 1) Fail(file, ": GGUF version 1 is not supported; llama.cpp of 2023 can convert it to version 2");
  if ((version & 0xFFFF) == 0 && version != 0)
    Fail(file,
         ": a big-endian GGUF file; only little-endian ones are supported (gguf-convert-endian of the gguf package "
         "converts)");
  if (version != 2 && version != 3) Fail(file, ": GGUF version ", version, " is not supported, only 2 and 3");
  return version;
}

size_t AlignmentOf(const GgufMetadata& metadata, const std::string& file) {
  for (const auto& [key, value] : metadata) {
    if (key != "general.alignment") continue;
    if (value.is_array || value.type != GgufType::kU32) Fail(file, ": general.alignment is not a u32");
    uint32_t alignment = 0;
    for (int i = 0; i < 4; ++i) alignment |= uint32_t(value.numbers[size_t(i)]) << (8 * i);
    if (alignment == 0 || (alignment & (alignment - 1)) != 0)
      Fail(file, ": general.alignment is ", alignment, ", not a power of two");
    return alignment;
  }
  return 32;
}

// One tensor's entry: `offset` counts from the start of the data section so far.
StoredTensor ReadTensorInfo(Cursor& in, size_t index, const std::string& file) {
  StoredTensor tensor = {};
  tensor.name = ReadName(in, file, "the name of tensor " + std::to_string(index));
  const std::string what = "tensor " + Quote(tensor.name);
  const uint32_t dimensions = in.Number<uint32_t>(what);
  if (dimensions > kMaxDimensions)
    Fail(file, ": ", what, ": ", dimensions, " dimensions, at most ", kMaxDimensions, " are allowed");
  for (uint32_t d = 0; d < dimensions; ++d) tensor.shape.push_back(in.Number<uint64_t>(what));
  std::reverse(tensor.shape.begin(), tensor.shape.end());

  const uint32_t number = in.Number<uint32_t>(what);
  GgufTensorType type;
  if (!FindTensorType(number, &type)) {
    if (IsRemovedTensorType(number))
      Fail(file, ": ", what, ": type ", number, " was removed from GGUF; the file must be made again from its source");
    Fail(file, ": ", what, ": unknown type ", number);
  }
  tensor.type = type.name;
  const uint64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (columns % type.block != 0)
    Fail(file, ": ", what, ": rows of ", columns, " weights are not a multiple of the block of ", type.block, " of ",
         type.name);
  // ggml counts elements and bytes in int64.
  constexpr uint64_t kMost = uint64_t(1) << 63;
  uint64_t elements = 1, bytes = 0;
  bool fits = true;
  for (const uint64_t extent : tensor.shape)
    fits = fits && Multiply(elements, extent, &elements) && elements < kMost && extent < kMost;
  if (!fits || !Multiply(elements / type.block, type.bytes, &bytes) || bytes >= kMost)
    Fail(file, ": ", what, ": its shape has too many elements");
  tensor.size = size_t(bytes);
  tensor.offset = size_t(in.Number<uint64_t>(what));
  return tensor;
}

// Turns offsets into addresses. `start` is where the data section begins.
void PlaceTensors(const uint8_t* data, size_t size, size_t start, size_t alignment, const std::string& file,
                  std::vector<StoredTensor>& tensors) {
  for (StoredTensor& tensor : tensors) {
    const std::string what = "tensor " + Quote(tensor.name);
    if (tensor.offset % alignment != 0)
      Fail(file, ": ", what, ": offset ", tensor.offset, " is not a multiple of the alignment ", alignment);
    const size_t available = start < size ? size - start : 0;
    if (tensor.size > 0 && (tensor.offset > available || tensor.size > available - tensor.offset))
      Fail(file, ": ", what, " lies beyond the end: ", tensor.size, " bytes at offset ", tensor.offset,
           ", the file has ", available, " bytes of tensors; it is cut off or damaged");
    if (tensor.size == 0 && tensor.offset > available) tensor.offset = available;
    tensor.offset += std::min(start, size);
    tensor.data = data + tensor.offset;
  }
  std::vector<const StoredTensor*> sorted;
  for (const StoredTensor& tensor : tensors)
    if (tensor.size > 0) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(),
            [](const StoredTensor* a, const StoredTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i]->offset - sorted[i - 1]->offset < sorted[i - 1]->size)
      Fail(file, ": tensors ", Quote(sorted[i - 1]->name), " and ", Quote(sorted[i]->name), " overlap");
}

}  // namespace

size_t SizeOf(GgufType type) {
  switch (type) {
    case GgufType::kU8: case GgufType::kI8: case GgufType::kBool: return 1;
    case GgufType::kU16: case GgufType::kI16: return 2;
    case GgufType::kU32: case GgufType::kI32: case GgufType::kF32: return 4;
    case GgufType::kU64: case GgufType::kI64: case GgufType::kF64: return 8;
    default: return 0;
  }
}

GgufFile GgufFile::Open(const std::string& path) {
  const auto file = MappedFile::Open(path);
  GgufFile out = Parse(file->data(), file->size(), ShownPath(path));
  out.file_ = file;
  return out;
}

GgufFile GgufFile::Parse(const uint8_t* data, size_t size, const std::string& name) {
  Cursor in(data, size, name);
  GgufFile out;
  out.version_ = ReadVersion(in, name);
  // The smallest entries: a tensor's name length, one byte of name, dimensions, type and offset; a key and a byte.
  const uint64_t tensor_count = in.Count(8 + 1 + 4 + 4 + 8, "the number of tensors");
  const uint64_t key_count = in.Count(8 + 1 + 4 + 1, "the number of metadata keys");

  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < key_count; ++i) {
    std::string key = ReadName(in, name, "metadata key " + std::to_string(i));
    if (!names.insert(key).second) Fail(name, ": metadata key ", Quote(key), " is given twice");
    const std::string what = "metadata " + Quote(key);
    const GgufType type = GgufType(in.Number<uint32_t>(what));
    GgufValue value = ReadValue(in, type, 0, name, what);
    out.metadata_.emplace_back(std::move(key), std::move(value));
  }
  out.alignment_ = AlignmentOf(out.metadata_, name);

  names.clear();
  for (uint64_t i = 0; i < tensor_count; ++i) {
    out.tensors_.push_back(ReadTensorInfo(in, i, name));
    if (!names.insert(out.tensors_.back().name).second)
      Fail(name, ": tensor ", Quote(out.tensors_.back().name), " is given twice");
  }
  const size_t mask = out.alignment_ - 1;
  PlaceTensors(data, size, (in.at() + mask) & ~mask, out.alignment_, name, out.tensors_);
  return out;
}

}  // namespace edgequant
