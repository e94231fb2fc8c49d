#include "kernels/cpu/gemm.h"
#include "kernels/cpu/compat.h"
#include "kernels/cpu/gemv.h"
#include "kernels/cpu/grid_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {

DecodeFn DecodeOf(const PanelLayout& layout) {
  switch (layout.bits) {
    case 1: return PickDecode<1, false>(layout);
    case 2: return layout.table ? PickDecode<2, true>(layout) : PickDecode<2, false>(layout);
    case 3: return layout.table ? PickDecode<3, true>(layout) : PickDecode<3, false>(layout);
    case 4: return layout.table ? PickDecode<4, true>(layout) : PickDecode<4, false>(layout);
    case 5: return PickDecode<5, false>(layout);
    case 6: return PickDecode<6, false>(layout);
    default: return PickDecode<8, false>(layout);
  }
}
TileFn TileOf(const PanelLayout& layout, int panels, int rows) {
  return panels == 1   ? PickTile<1>(layout, rows)
         : panels == 2 ? PickTile<2>(layout, rows)
                       : PickTile<3>(layout, rows);
}
int StripPanelsOf() { return kStripPanels; }
int TileRunOf() {
  return WithDotUnit([](auto unit) { return 4 * kTileSteps<unit>; });
}
int ZeroOfFolded() { return kUnsignedDot ? 128 : 0; }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(DecodeOf);
HWY_EXPORT(TileOf);
HWY_EXPORT(StripPanelsOf);
HWY_EXPORT(TileRunOf);
HWY_EXPORT(ZeroOfFolded);

}  // namespace panel
using namespace panel;

DecodeFn FindDecode(const PanelLayout& layout) {
  return layout.grid ? FindGridDecode(layout) : HWY_DYNAMIC_DISPATCH(DecodeOf)(layout);
}
TileFn FindTile(const PanelLayout& layout, int panels, int rows) {
  return HWY_DYNAMIC_DISPATCH(TileOf)(layout, panels, rows);
}
int StripPanels() { return HWY_DYNAMIC_DISPATCH(StripPanelsOf)(); }
int TileRun() { return HWY_DYNAMIC_DISPATCH(TileRunOf)(); }
int TileZero(const PanelLayout& layout) {
  return layout.fold != 0 ? HWY_DYNAMIC_DISPATCH(ZeroOfFolded)() : GemvZero(layout);
}

}  // namespace edgequant
#endif
