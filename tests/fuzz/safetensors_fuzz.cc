#include "core/error.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "touch.h"

using namespace edgequant;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const SafetensorsFile file = SafetensorsFile::Parse(data, size, "input");
    CheckTensors(file.tensors(), data, size);
    for (const StoredTensor& t : file.tensors())
      if (!IsUtf8(t.name)) std::abort();
    for (const auto& [key, value] : file.metadata())
      if (!IsUtf8(key) || !IsUtf8(value)) std::abort();
  } catch (const Error& error) {
    if (*error.what() == '\0') std::abort();
  }
  return 0;
}
