// The matrix-vector product for 1 row of activations.
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemv_rows1.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/gemv-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {

GemvFn FindRows1(const PanelLayout& layout) { return PickGemv<1>(layout); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant::panel {

HWY_EXPORT(FindRows1);
GemvFn FindGemvRows1(const PanelLayout& layout) { return HWY_DYNAMIC_DISPATCH(FindRows1)(layout); }

}  // namespace edgequant::panel
#endif
