// The one list of formats: X(id, name, description, number in GGUF files or -1).
#pragma once
#include <string_view>

#include "format/ggml.h"

#define EDGEQUANT_FORMATS(X)                                                                            \
  X(F32, "f32", ggml::F32, 0) X(F16, "f16", ggml::F16, 1) X(BF16, "bf16", ggml::BF16, 30)               \
  X(Q4_0, "q4_0", ggml::Q4_0, 2) X(Q4_1, "q4_1", ggml::Q4_1, 3) X(Q5_0, "q5_0", ggml::Q5_0, 6)          \
  X(Q5_1, "q5_1", ggml::Q5_1, 7) X(Q8_0, "q8_0", ggml::Q8_0, 8) X(Q2_K, "q2_k", ggml::Q2_K, 10)         \
  X(Q3_K, "q3_k", ggml::Q3_K, 11) X(Q4_K, "q4_k", ggml::Q4_K, 12) X(Q5_K, "q5_k", ggml::Q5_K, 13)       \
  X(Q6_K, "q6_k", ggml::Q6_K, 14) X(IQ1_S, "iq1_s", ggml::IQ1_S, 19) X(IQ1_M, "iq1_m", ggml::IQ1_M, 29) \
  X(IQ2_XXS, "iq2_xxs", ggml::IQ2_XXS, 16) X(IQ2_XS, "iq2_xs", ggml::IQ2_XS, 17)                        \
  X(IQ2_S, "iq2_s", ggml::IQ2_S, 22) X(IQ3_XXS, "iq3_xxs", ggml::IQ3_XXS, 18)                           \
  X(IQ3_S, "iq3_s", ggml::IQ3_S, 21) X(IQ4_NL, "iq4_nl", ggml::IQ4_NL, 20)                              \
  X(IQ4_XS, "iq4_xs", ggml::IQ4_XS, 23) X(TQ1_0, "tq1_0", ggml::TQ1_0, 34)                              \
  X(TQ2_0, "tq2_0", ggml::TQ2_0, 35) X(MXFP4, "mxfp4", ggml::MXFP4, 39)                                 \
  X(NVFP4, "nvfp4", ggml::NVFP4, 40) X(Q1_0, "q1_0", ggml::Q1_0, 41) X(Q2_0, "q2_0", ggml::Q2_0, 42)

namespace edgequant {

enum class FormatId {
#define EDGEQUANT_X(id, name, block, gguf) k##id,
  EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
};

struct CatalogEntry {
  const char* name;
  const Block* block;
  int gguf_type;  // -1: the format has no number in GGUF files
};
inline constexpr CatalogEntry kCatalog[] = {
#define EDGEQUANT_X(id, name, block, gguf) {name, &block, gguf},
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
};
inline constexpr int kFormatCount = sizeof(kCatalog) / sizeof(kCatalog[0]);

EDGEQUANT_HD constexpr const Block& BlockOf(FormatId id) { return *kCatalog[int(id)].block; }
constexpr const char* NameOf(FormatId id) { return kCatalog[int(id)].name; }

// False if there is no such format.
constexpr bool FindFormat(std::string_view name, FormatId* id) {
  for (int k = 0; k < kFormatCount; ++k)
    if (name == kCatalog[k].name) return *id = FormatId(k), true;
  return false;
}
constexpr bool FindGgufType(uint32_t number, FormatId* id) {
  for (int k = 0; k < kFormatCount; ++k)
    if (kCatalog[k].gguf_type >= 0 && number == uint32_t(kCatalog[k].gguf_type)) return *id = FormatId(k), true;
  return false;
}

}  // namespace edgequant
