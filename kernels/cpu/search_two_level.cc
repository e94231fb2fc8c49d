// Formats with integer scales per group and no minimum.
#include "kernels/cpu/search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/search_two_level.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void SearchTwoLevelTargeted(FormatId id, const SearchJob& job) {
  switch (id) {
    case FormatId::kQ3_K: return SearchBlocks<ggml::Q3_K>(job);
    case FormatId::kQ6_K: return SearchBlocks<ggml::Q6_K>(job);
    case FormatId::kIQ4_XS: return SearchBlocks<ggml::IQ4_XS>(job);
    default: return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchTwoLevelTargeted);
void SearchTwoLevel(FormatId id, const SearchJob& job) { HWY_DYNAMIC_DISPATCH(SearchTwoLevelTargeted)(id, job); }

}  // namespace edgequant
#endif  // HWY_ONCE
