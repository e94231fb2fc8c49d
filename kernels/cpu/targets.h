// The instruction sets that the kernels are compiled for and that this machine has.
#pragma once
#include <string>
#include <vector>

namespace edgequant {

// Their names, the best first, such as AVX3_DL, AVX2, SCALAR.
std::vector<std::string> KernelTargets();

// The one in use.
const char* KernelTarget();

// Uses this one from now on, or the best for an empty name; false if there is no such target here. For tests and
// benchmarks: not while a kernel runs on another thread.
bool UseKernelTarget(const std::string& name);

}  // namespace edgequant
