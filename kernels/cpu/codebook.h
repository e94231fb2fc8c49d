// The nearest rows of a codebook.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace edgequant {

// For each of n vectors x of dim 2, 4 or 8 the row with the least squared distance, weighted by w where it is not null
// (both n x dim). Of equal rows the first.
void NearestRows(const float* x, const float* w, size_t n, int dim, const float* rows, size_t count, uint16_t* codes);

// A codebook in whole numbers, for trials: products of 12 bits, with the index of a row in the lowest bits of its
// distance.
struct RoughBook {
  static constexpr size_t kAtOnce = 256;  // rows whose indices fit
  static constexpr float kMost = 2047;    // magnitude of the numbers of a vector
  int dim = 0;
  size_t count = 0;
  float per_unit = 0;            // of a vector's numbers, whole ones for 1
  float distance_unit = 0;       // of a distance
  bool usable = false;           // squares of the numbers neither overflow nor vanish
  std::vector<int32_t> rows;     // count x (dim / 2 pairs, and half of the square with the index)
  std::vector<float> halves;     // halves of the rows' squares, exact
  RoughBook(const float* book, size_t n, int width);
};

// The same, nearly: numbers of x above six times the book's largest count as that. `distance` receives what is
// nearest's squared distance less x^2, halved.
void NearlyNearestRows(const RoughBook& book, const float* x, size_t n, uint16_t* codes, float* distance);

}  // namespace edgequant
