// The instruction sets that the kernels are compiled for and that this machine has.
#pragma once
#include <string>
#include <vector>

namespace edgequant {

// Their names, the best first, such as AVX3_DL, AVX2, SCALAR; on 64-bit Arm such as NEON_I8MM, NEON_DOTPROD, NEON.
std::vector<std::string> KernelTargets();

// The one in use.
std::string KernelTarget();

// Uses this one from now on, or the best for an empty name; false if there is no such target here. For tests and
// benchmarks: not while a kernel runs on another thread.
bool UseKernelTarget(const std::string& name);

// What processors of 64-bit Arm have beyond NEON: sums of four products of bytes (sdot), products of 2 x 8 by 8 x 2
// bytes (smmla). One build serves all. Elsewhere the instruction set says it all: kNone.
enum class DotUnit { kNone, kFours, kMatrices };
DotUnit DotUnitInUse();

// The unit for products of one row, for which smmla has no use.
constexpr DotUnit ForVectors(DotUnit unit) { return unit == DotUnit::kMatrices ? DotUnit::kFours : unit; }

}  // namespace edgequant
