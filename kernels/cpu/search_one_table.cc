// Formats whose scale is stored once per group, codes from a table.
#include "kernels/cpu/search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/search_one_table.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

void SearchOneTableTargeted(FormatId id, const SearchJob& job) {
  switch (id) {
    case FormatId::kIQ4_NL: return SearchBlocks<ggml::IQ4_NL>(job);
    case FormatId::kMXFP4: return SearchBlocks<ggml::MXFP4>(job);
    case FormatId::kNVFP4: return SearchBlocks<ggml::NVFP4>(job);
    case FormatId::kQ1_0: return SearchBlocks<ggml::Q1_0>(job);
    default: return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(SearchOneTableTargeted);
void SearchOneLevelTable(FormatId id, const SearchJob& job) { HWY_DYNAMIC_DISPATCH(SearchOneTableTargeted)(id, job); }

}  // namespace edgequant
#endif  // HWY_ONCE
