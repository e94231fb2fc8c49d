// Rotations of weights and activations along a row: random signs, then a Hadamard transform of each run of columns.
#pragma once
#include <cstddef>
#include <vector>

#include "format/scheme.h"

namespace edgequant {

// The run of columns that are mixed; throws Error, naming `who`, if it does not divide the row.
size_t TransformBlock(const Transform& t, size_t cols, const std::string& who);

// Orthonormal: products of rotated rows are those of the rows. Column c has the sign of bit c % 64 of the generator's
// number c / 64 (splitmix64 from the seed; the seed 0 has no signs).
class Hadamard {
 public:
  Hadamard(const Transform& t, size_t cols, const std::string& who);
  size_t cols() const { return factors_.size(); }
  size_t block() const { return block_; }
  void Forward(float* row) const;   // a row of `cols` numbers, in place
  void Backward(float* row) const;

 private:
  size_t block_;
  std::vector<float> factors_;
};

}  // namespace edgequant
