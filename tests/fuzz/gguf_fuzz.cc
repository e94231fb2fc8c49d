#include "core/error.h"
#include "io/gguf.h"
#include "touch.h"

using namespace edgequant;

// Values hold whole numbers, and exactly one where they are no arrays.
static void CheckValue(const GgufValue& value, bool nested) {
  const size_t width = SizeOf(value.type);
  if (nested && !value.is_array) std::abort();
  if (width > 0 && value.numbers.size() % width != 0) std::abort();
  const size_t count = width > 0 ? value.numbers.size() / width : value.strings.size();
  if (!value.is_array && count != 1) std::abort();
  for (const GgufValue& element : value.arrays) CheckValue(element, true);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const GgufFile file = GgufFile::Parse(data, size, "input");
    for (const auto& [key, value] : file.metadata()) CheckValue(value, false);
    CheckTensors(file.tensors(), data, size);
  } catch (const Error& error) {
    if (*error.what() == '\0') std::abort();
  }
  return 0;
}
