#include "io/gguf_types.h"

#include "format/catalog.h"

namespace edgequant {
namespace {

// Not weight formats, or not only: numbers of tensors such as norms and token ids, and ggml's types of activations.
constexpr GgufTensorType kOthers[] = {
    {kGgufTypeF32, "f32", 1, 4}, {1, "f16", 1, 2},  {30, "bf16", 1, 2}, {28, "f64", 1, 8},   {24, "i8", 1, 1},
    {25, "i16", 1, 2},           {26, "i32", 1, 4}, {27, "i64", 1, 8},  {9, "q8_1", 32, 36}, {15, "q8_k", 256, 292},
};

GgufTensorType FromCatalog(FormatId id) {
  const CatalogEntry& entry = kCatalog[int(id)];
  return {uint32_t(entry.gguf_type), entry.name, uint64_t(entry.block->n), uint64_t(entry.block->bytes)};
}

}  // namespace

bool FindTensorType(uint32_t number, GgufTensorType* type) {
  FormatId id;
  if (FindGgufType(number, &id)) return *type = FromCatalog(id), true;
  for (const GgufTensorType& other : kOthers)
    if (other.number == number) return *type = other, true;
  return false;
}

bool FindTensorType(std::string_view name, GgufTensorType* type) {
  FormatId id;
  if (FindFormat(name, &id) && kCatalog[int(id)].gguf_type >= 0) return *type = FromCatalog(id), true;
  for (const GgufTensorType& other : kOthers)
    if (other.name == name) return *type = other, true;
  return false;
}

bool IsRemovedTensorType(uint32_t number) {
  // Q4_2, Q4_3; Q4_0_4_4, Q4_0_4_8, Q4_0_8_8; IQ4_NL_4_4, IQ4_NL_4_8, IQ4_NL_8_8.
  return number == 4 || number == 5 || (number >= 31 && number <= 33) || (number >= 36 && number <= 38);
}

}  // namespace edgequant
