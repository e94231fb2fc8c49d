#include "kernels/cpu/targets.h"

#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/targets.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

const char* TargetInUse() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(TargetInUse);

const char* KernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetInUse)(); }

std::vector<std::string> KernelTargets() {
  std::vector<std::string> names;
  const int64_t here = hwy::SupportedTargets() | HWY_STATIC_TARGET;  // the baseline runs everywhere
  for (int64_t rest = here & HWY_TARGETS; rest != 0; rest &= rest - 1) names.push_back(hwy::TargetName(rest & -rest));
  return names;
}

bool UseKernelTarget(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  int64_t chosen = hwy::SupportedTargets();
  if (!name.empty()) {
    int64_t rest = (chosen | HWY_STATIC_TARGET) & HWY_TARGETS;
    while (rest != 0 && hwy::TargetName(rest & -rest) != name) rest &= rest - 1;
    if (rest == 0) return false;
    chosen = rest & -rest;
    hwy::SetSupportedTargetsForTest(chosen);
  }
  hwy::GetChosenTarget().Update(chosen);
  return true;
}

}  // namespace edgequant
#endif  // HWY_ONCE
