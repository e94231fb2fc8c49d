// Formats with integer scales and minima per group.
#include "kernels/cpu/search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/search_two_level_min.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void SearchTwoLevelMinTargeted(FormatId id, const SearchJob& job) {
  switch (id) {
    case FormatId::kQ2_K: return SearchBlocks<ggml::Q2_K>(job);
    case FormatId::kQ4_K: return SearchBlocks<ggml::Q4_K>(job);
    case FormatId::kQ5_K: return SearchBlocks<ggml::Q5_K>(job);
    default: return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchTwoLevelMinTargeted);
void SearchTwoLevelMin(FormatId id, const SearchJob& job) { HWY_DYNAMIC_DISPATCH(SearchTwoLevelMinTargeted)(id, job); }

}  // namespace edgequant
#endif  // HWY_ONCE
