#include "kernels/cpu/attend.h"

#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attend.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/attend-inl.h"

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(NormRowTargeted);
HWY_EXPORT(RotateHeadTargeted);
HWY_EXPORT(AttendHeadTargeted);
HWY_EXPORT(GateRowTargeted);
HWY_EXPORT(AddRowTargeted);

void NormRow(const float* x, FormatId type, const void* w, float plus, float eps, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(NormRowTargeted)(x, type, w, plus, eps, n, y);
}
void RotateHead(float* x, const float* cos, const float* sin, size_t d) {
  HWY_DYNAMIC_DISPATCH(RotateHeadTargeted)(x, cos, sin, d);
}
void AttendHead(FormatId type, const float* q, const void* keys, const void* values, size_t n, size_t d, float scale,
                float* scores, float* y) {
  HWY_DYNAMIC_DISPATCH(AttendHeadTargeted)(type, q, keys, values, n, d, scale, scores, y);
}
void GateRow(Gate kind, float* gate, const float* up, size_t n) {
  HWY_DYNAMIC_DISPATCH(GateRowTargeted)(kind, gate, up, n);
}
void AddRow(float* x, FormatId type, const void* y, size_t n) {
  HWY_DYNAMIC_DISPATCH(AddRowTargeted)(x, type, y, n);
}

}  // namespace edgequant
#endif  // HWY_ONCE
