#include "kernels/cpu/targets.h"

#include <algorithm>
#include <cstdint>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

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

namespace {

#if HWY_ARCH_ARM_A64
constexpr const char* kUnitNames[] = {"", "_DOTPROD", "_I8MM"};

#if defined(__APPLE__)
bool Has(const char* feature) {
  int32_t has = 0;
  size_t size = sizeof(has);
  return sysctlbyname(feature, &has, &size, nullptr, 0) == 0 && has != 0;
}
#endif

DotUnit BestDotUnit() {
#if defined(__linux__)  // bits of <asm/hwcap.h>, which older systems lack
  const bool fours = getauxval(AT_HWCAP) >> 20 & 1, matrices = getauxval(AT_HWCAP2) >> 13 & 1;
#elif defined(__APPLE__)
  const bool fours = Has("hw.optional.arm.FEAT_DotProd"), matrices = Has("hw.optional.arm.FEAT_I8MM");
#elif defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)
  const bool fours = true, matrices = true;
#else
  const bool fours = false, matrices = false;
#endif
  return fours && matrices ? DotUnit::kMatrices : fours ? DotUnit::kFours : DotUnit::kNone;
}
#else
constexpr const char* kUnitNames[] = {""};
DotUnit BestDotUnit() { return DotUnit::kNone; }
#endif

DotUnit unit_in_use = BestDotUnit();

struct Choice {
  int64_t target;
  DotUnit unit;
  std::string Name() const { return hwy::TargetName(target) + std::string(kUnitNames[int(unit)]); }
};
std::vector<Choice> Choices() {
  std::vector<Choice> choices;
  const int64_t here = hwy::SupportedTargets() | HWY_STATIC_TARGET;  // the baseline runs everywhere
  for (int64_t rest = here & HWY_TARGETS; rest != 0; rest &= rest - 1)
    for (int unit = int(BestDotUnit()); unit >= 0; --unit) choices.push_back({rest & -rest, DotUnit(unit)});
  return choices;
}

}  // namespace

std::string KernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetInUse)() + std::string(kUnitNames[int(unit_in_use)]); }

std::vector<std::string> KernelTargets() {
  std::vector<std::string> names;
  for (const Choice& choice : Choices()) names.push_back(choice.Name());
  return names;
}

bool UseKernelTarget(const std::string& name) {
  hwy::SetSupportedTargetsForTest(0);
  const std::vector<Choice> choices = Choices();
  const auto chosen = std::find_if(choices.begin(), choices.end(), [&](const Choice& c) { return c.Name() == name; });
  if (!name.empty() && chosen == choices.end()) return false;
  if (!name.empty()) hwy::SetSupportedTargetsForTest(chosen->target);
  hwy::GetChosenTarget().Update(name.empty() ? hwy::SupportedTargets() : chosen->target);
  unit_in_use = name.empty() ? BestDotUnit() : chosen->unit;
  return true;
}

DotUnit DotUnitInUse() { return unit_in_use; }

}  // namespace edgequant
#endif  // HWY_ONCE
