#include <atomic>
#include <unordered_set>

#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_types.h"
#include "io/output_file.h"
#include "io/text.h"

namespace edgequant {
namespace {

constexpr uint32_t kVersion = 3;
constexpr size_t kLongestTensorName = 63;   // ggml keeps names in 64 bytes with a zero at the end
constexpr size_t kLongestKey = 65535;       // the format's own rule
constexpr char kAlignmentKey[] = "general.alignment";

using Bytes = std::vector<uint8_t>;

template <class T>
void Append(Bytes& out, T value) {
  uint8_t bytes[sizeof(T)];
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = uint8_t(uint64_t(value) >> (8 * i));
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

void Append(Bytes& out, const std::string& text) {
  Append(out, uint64_t(text.size()));
  out.insert(out.end(), text.begin(), text.end());
}

void AppendElements(Bytes& out, const GgufValue& value, const std::string& what);

void AppendArray(Bytes& out, const GgufValue& value, const std::string& what) {
  const size_t size = SizeOf(value.type);
  if (size == 0 && value.type != GgufType::kString && value.type != GgufType::kArray)
    Fail(what, ": unknown type of array elements");
  if (size > 0 && value.numbers.size() % size != 0) Fail(what, ": its bytes are not whole numbers");
  Append(out, uint32_t(value.type));
  Append(out, uint64_t(size > 0                          ? value.numbers.size() / size
                       : value.type == GgufType::kString ? value.strings.size()
                                                         : value.arrays.size()));
  AppendElements(out, value, what);
}

void AppendElements(Bytes& out, const GgufValue& value, const std::string& what) {
  if (value.type == GgufType::kString) {
    for (const std::string& text : value.strings) Append(out, text);
  } else if (value.type == GgufType::kArray) {
    for (const GgufValue& element : value.arrays) {
      if (!element.is_array) Fail(what, ": an array of arrays holds something else");
      AppendArray(out, element, what);
    }
  } else {
    out.insert(out.end(), value.numbers.begin(), value.numbers.end());
  }
}

void AppendEntry(Bytes& out, const std::string& key, const GgufValue& value, const std::string& file) {
  const std::string what = file + ": metadata " + Quote(key);
  if (key.empty() || key.size() > kLongestKey || !IsUtf8(key) || key.find('\0') != std::string::npos)
    Fail(what, ": not a valid key");
  Append(out, key);
  if (value.is_array) {
    Append(out, uint32_t(GgufType::kArray));
    AppendArray(out, value, what);
    return;
  }
  const bool is_one = value.type == GgufType::kString
                          ? value.strings.size() == 1
                          : SizeOf(value.type) > 0 && value.numbers.size() == SizeOf(value.type);
  if (!is_one) Fail(what, ": a scalar must have exactly one value of a known type");
  Append(out, uint32_t(value.type));
  AppendElements(out, value, what);
}

bool IsPowerOfTwo(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

// The alignment that holds for the file: the argument, else the metadata's, else the format's default.
size_t ChooseAlignment(size_t alignment, const GgufMetadata& metadata, const std::string& file, bool* in_metadata) {
  uint64_t stated = 0;
  *in_metadata = false;
  for (const auto& [key, value] : metadata) {
    if (key != kAlignmentKey) continue;
    if (value.is_array || value.type != GgufType::kU32 || value.numbers.size() != 4)
      Fail(file, ": ", kAlignmentKey, " is not a u32");
    for (size_t i = 0; i < 4; ++i) stated |= uint64_t(value.numbers[i]) << (8 * i);
    if (!IsPowerOfTwo(stated)) Fail(file, ": ", kAlignmentKey, " is ", stated, ", not a power of two");
    *in_metadata = true;
  }
  if (alignment == 0) return *in_metadata ? size_t(stated) : 32;
  if (!IsPowerOfTwo(alignment) || alignment > UINT32_MAX)
    Fail(file, ": an alignment of ", alignment, " is not a power of two");
  if (*in_metadata && alignment != stated)
    Fail(file, ": the alignment is ", alignment, ", but ", kAlignmentKey, " in the metadata is ", stated);
  return alignment;
}

// Bytes of a tensor, checked as llama.cpp checks them when it loads.
uint64_t CheckTensor(const GgufWriter::Tensor& tensor, const std::string& file, GgufTensorType* type) {
  const std::string what = file + ": tensor " + Quote(tensor.name);
  if (tensor.name.empty() || !IsUtf8(tensor.name) || tensor.name.find('\0') != std::string::npos)
    Fail(what, ": not a valid name");
  if (tensor.name.size() > kLongestTensorName)
    Fail(what, ": its name has ", tensor.name.size(), " bytes, llama.cpp allows ", kLongestTensorName);
  if (tensor.shape.size() > size_t(kMaxDimensions))
    Fail(what, ": ", tensor.shape.size(), " dimensions, GGUF allows ", kMaxDimensions);
  if (!FindTensorType(tensor.type, type)) Fail(what, ": GGUF has no type ", Quote(tensor.type));
  const uint64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (columns % type->block != 0)
    Fail(what, ": rows of ", columns, " weights are not a multiple of the block of ", type->block, " of ", type->name);
  uint64_t elements = 1, bytes = 0;
  bool fits = true;
  for (const uint64_t extent : tensor.shape) fits = fits && Multiply(elements, extent, &elements);
  if (!fits || !Multiply(elements / type->block, type->bytes, &bytes) || bytes >> 62 != 0)
    Fail(what, ": its shape has too many elements");
  return bytes;
}

// The file's beginning, and where each tensor lies: [offset, offset + bytes).
struct Plan {
  Bytes header;
  std::vector<uint64_t> offsets, bytes;
  uint64_t total = 0;
};

Plan MakePlan(const std::string& name, const GgufMetadata& metadata, const std::vector<GgufWriter::Tensor>& tensors,
              size_t alignment) {
  bool alignment_in_metadata;
  alignment = ChooseAlignment(alignment, metadata, name, &alignment_in_metadata);
  const bool add_alignment = alignment != 32 && !alignment_in_metadata;
  const auto padded = [alignment](uint64_t n) { return (n + alignment - 1) & ~uint64_t(alignment - 1); };

  Plan plan;
  Bytes& header = plan.header;
  header = {'G', 'G', 'U', 'F'};
  Append(header, kVersion);
  Append(header, uint64_t(tensors.size()));
  Append(header, uint64_t(metadata.size() + add_alignment));
  std::unordered_set<std::string> names;
  for (const auto& [key, value] : metadata) {
    AppendEntry(header, key, value, name);
    if (!names.insert(key).second) Fail(name, ": metadata key ", Quote(key), " is given twice");
  }
  if (add_alignment) {
    Append(header, std::string(kAlignmentKey));
    Append(header, uint32_t(GgufType::kU32));
    Append(header, uint32_t(alignment));
  }

  names.clear();
  uint64_t offset = 0;
  for (const GgufWriter::Tensor& tensor : tensors) {
    GgufTensorType type;
    const uint64_t bytes = CheckTensor(tensor, name, &type);
    if (!names.insert(tensor.name).second) Fail(name, ": tensor ", Quote(tensor.name), " is given twice");
    Append(header, tensor.name);
    Append(header, uint32_t(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d-- > 0;) Append(header, tensor.shape[d]);
    Append(header, type.number);
    Append(header, offset);
    plan.offsets.push_back(offset);
    plan.bytes.push_back(bytes);
    if (__builtin_add_overflow(offset, padded(bytes), &offset) || offset >> 62 != 0)
      Fail(name, ": the tensors are too large for one file");
  }
  const uint64_t start = padded(header.size());
  for (uint64_t& at : plan.offsets) at += start;
  plan.total = start + offset;
  return plan;
}

}  // namespace

struct GgufWriter::State {
  struct Slot {
    std::string name;
    uint64_t offset = 0, size = 0;
    std::atomic<uint64_t> written{0};  // of the parts
    std::atomic<int> progress{0};      // 0: open, 1: being written, 2: done
  };
  std::string name;  // of the file, in messages
  std::unique_ptr<Slot[]> slots;
  size_t count = 0;
  uint64_t total = 0;
  std::unique_ptr<OutputFile> file;
  bool is_finished = false;
};

GgufWriter::GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<Tensor> tensors,
                       size_t alignment)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.name = ShownPath(path);
  const Plan plan = MakePlan(state.name, metadata, tensors, alignment);
  state.count = tensors.size();
  state.slots = std::make_unique<State::Slot[]>(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    state.slots[i].name = std::move(tensors[i].name);
    state.slots[i].offset = plan.offsets[i];
    state.slots[i].size = plan.bytes[i];
  }
  state.total = plan.total;
  state.file = std::make_unique<OutputFile>(path, state.total);
  state.file->WriteAt(0, plan.header.data(), plan.header.size());
}

GgufWriter::~GgufWriter() = default;
GgufWriter::GgufWriter(GgufWriter&&) noexcept = default;
GgufWriter& GgufWriter::operator=(GgufWriter&&) noexcept = default;

void GgufWriter::Begin(size_t index, uint64_t size) {
  State& state = *state_;
  if (state.is_finished) Fail(state.name, ": the file is finished, nothing can be written to it");
  if (index >= state.count) Fail(state.name, ": tensor ", index, " of ", state.count, " does not exist");
  State::Slot& slot = state.slots[index];
  if (size != slot.size) Fail(state.name, ": tensor ", Quote(slot.name), " has ", slot.size, " bytes, not ", size);
  int open = 0;
  if (!slot.progress.compare_exchange_strong(open, 1))
    Fail(state.name, ": tensor ", Quote(slot.name), " is written twice");
  slot.written = 0;
}

void GgufWriter::WritePart(size_t index, uint64_t at, const uint8_t* data, size_t size) {
  if (index >= state_->count || state_->slots[index].progress != 1)
    Fail(state_->name, ": tensor ", index, " is not being written");
  State::Slot& slot = state_->slots[index];
  if (at > slot.size || size > slot.size - at)
    Fail(state_->name, ": tensor ", Quote(slot.name), ": a part beyond its end");
  state_->file->WriteAt(slot.offset + at, data, size);
  slot.written += size;
}

void GgufWriter::End(size_t index) {
  State::Slot& slot = state_->slots[index];
  if (slot.written != slot.size)
    Fail(state_->name, ": tensor ", Quote(slot.name), ": ", slot.written.load(), " of its ", slot.size,
         " bytes were written");
  slot.progress = 2;
}

void GgufWriter::Abort(size_t index) noexcept { state_->slots[index].progress = 0; }

void GgufWriter::Write(size_t index, const uint8_t* data, size_t size, const std::function<void()>& poll) {
  Begin(index, size);
  try {
    state_->file->WriteAt(state_->slots[index].offset, data, size, poll);
  } catch (...) {
    Abort(index);
    throw;
  }
  state_->slots[index].progress = 2;
}

void GgufWriter::Finish() {
  State& state = *state_;
  if (state.is_finished) Fail(state.name, ": the file is finished already");
  for (size_t i = 0; i < state.count; ++i)
    if (state.slots[i].progress != 2) Fail(state.name, ": tensor ", Quote(state.slots[i].name), " was not written");
  state.file->Publish();
  state.is_finished = true;
}

uint64_t GgufWriter::file_size() const { return state_->total; }

uint64_t GgufWriter::SizeOf(const GgufMetadata& metadata, const std::vector<Tensor>& tensors) {
  return MakePlan("the file", metadata, tensors, 0).total;
}

}  // namespace edgequant
