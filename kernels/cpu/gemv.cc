#include "kernels/cpu/gemv.h"
#include "kernels/cpu/compat.h"
#include "kernels/cpu/grid_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemv.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/panel_lines-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {

int ZeroOf(const PanelLayout& layout) {
  if (layout.table) return kUnsignedDot ? 128 : 0;
  return layout.zero + (layout.bits == 8 && kUnsignedDot ? 128 : 0);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

GemvFn FindGemvRows1(const PanelLayout& layout);
GemvFn FindGemvRows2(const PanelLayout& layout);
GemvFn FindGemvRows4(const PanelLayout& layout);
HWY_EXPORT(ZeroOf);

}  // namespace panel

GemvFn FindGemv(const PanelLayout& layout, int rows) {
  if (layout.grid) return FindGridGemv(layout, rows);
  return rows == 1   ? panel::FindGemvRows1(layout)
         : rows == 2 ? panel::FindGemvRows2(layout)
                     : panel::FindGemvRows4(layout);
}
int GemvZero(const PanelLayout& layout) {
  using namespace panel;
  return HWY_DYNAMIC_DISPATCH(ZeroOf)(layout);
}

}  // namespace edgequant
#endif
