// Formats whose scale is stored once per group, whole-number codes.
#include "kernels/cpu/search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/search_one_level.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void SearchOneLevelTargeted(FormatId id, const SearchJob& job) {
  switch (id) {
    case FormatId::kQ4_0: return SearchBlocks<ggml::Q4_0>(job);
    case FormatId::kQ4_1: return SearchBlocks<ggml::Q4_1>(job);
    case FormatId::kQ5_0: return SearchBlocks<ggml::Q5_0>(job);
    case FormatId::kQ5_1: return SearchBlocks<ggml::Q5_1>(job);
    case FormatId::kQ8_0: return SearchBlocks<ggml::Q8_0>(job);
    case FormatId::kTQ1_0: return SearchBlocks<ggml::TQ1_0>(job);
    case FormatId::kTQ2_0: return SearchBlocks<ggml::TQ2_0>(job);
    case FormatId::kQ2_0: return SearchBlocks<ggml::Q2_0>(job);
    default: return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchOneLevelTargeted);
void SearchOneLevelWhole(FormatId id, const SearchJob& job) { HWY_DYNAMIC_DISPATCH(SearchOneLevelTargeted)(id, job); }

}  // namespace edgequant
#endif  // HWY_ONCE
