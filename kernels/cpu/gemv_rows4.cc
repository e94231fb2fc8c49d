// The matrix-vector product for 4 rows of activations.
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemv_rows4.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/gemv-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {

GemvFn FindRows4(const PanelLayout& layout) { return PickGemv<4>(layout); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant::panel {

HWY_EXPORT(FindRows4);
GemvFn FindGemvRows4(const PanelLayout& layout) { return HWY_DYNAMIC_DISPATCH(FindRows4)(layout); }

}  // namespace edgequant::panel
#endif
