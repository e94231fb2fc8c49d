// The instruction set that the operations run with.
#pragma once
#include <string>
#include <vector>

namespace edgequant {

// The name of the one in use, such as AVX3_DL, and of all that this machine could use, the best first.
std::string SimdTarget();
std::vector<std::string> SimdTargets();

// Uses this one from now on, or the best for an empty name. Throws Error if it is not among SimdTargets. For tests and
// benchmarks: not while an operation runs on another thread.
void UseSimdTarget(const std::string& name);

}  // namespace edgequant
