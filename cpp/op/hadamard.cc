#include "op/hadamard.h"

#include <cmath>

#include "core/error.h"
#include "kernels/cpu/hadamard.h"

namespace edgequant {

size_t TransformBlock(const Transform& t, size_t cols, const std::string& who) {
  const size_t block = t.block ? size_t(t.block) : cols & -cols;
  if (block < 16)
    Fail("format '", who, "': rows of ", cols, " weights have no transform, since 16 does not divide them");
  if (cols % block != 0)
    Fail("format '", who, "': rows of ", cols, " weights are not a multiple of the transform's ", block);
  return block;
}

Hadamard::Hadamard(const Transform& t, size_t cols, const std::string& who)
    : block_(TransformBlock(t, cols, who)), factors_(cols) {
  const float unit = float(1 / std::sqrt(double(block_)));
  uint64_t state = t.seed, bits = 0;
  for (size_t c = 0; c < cols; ++c) {
    if (t.seed != 0 && c % 64 == 0) {  // splitmix64
      bits = state += 0x9e3779b97f4a7c15ull;
      bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9ull;
      bits = (bits ^ bits >> 27) * 0x94d049bb133111ebull;
      bits ^= bits >> 31;
    }
    factors_[c] = bits >> (c % 64) & 1 ? -unit : unit;
  }
}

void Hadamard::Forward(float* row) const { HadamardAfter(factors_.data(), block_, factors_.size(), row); }
void Hadamard::Backward(float* row) const { HadamardBefore(factors_.data(), block_, factors_.size(), row); }

}  // namespace edgequant
