#include "op/target.h"

#include "core/error.h"
#include "kernels/cpu/targets.h"

namespace edgequant {

std::string SimdTarget() { return KernelTarget(); }

std::vector<std::string> SimdTargets() { return KernelTargets(); }

void UseSimdTarget(const std::string& name) {
  if (UseKernelTarget(name)) return;
  std::string list;
  for (const std::string& target : KernelTargets()) list += (list.empty() ? "" : ", ") + target;
  Fail("there is no instruction set '", name, "' here; there are ", list);
}

}  // namespace edgequant
