// Weighted k-means: of numbers, exactly; of vectors, from k-means++ on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgequant {

// The k levels with the least weighted squared distance to n numbers in rising order, in rising order; exact, by
// dynamic programming over the cuts. Weights are >= 0. If there are fewer than k different numbers, the last level
// repeats.
std::vector<float> BestLevels(const float* values, const float* weights, size_t n, int k);

// Numbers in bins, as many as they may be: each bin stands for the weighted mean of what fell into it.
class LevelHistogram {
 public:
  explicit LevelHistogram(float reach, size_t bins = 2048);  // of [-reach, reach]
  void Add(float value, float weight) {
    const float at = (value + reach_) * per_bin_;
    const size_t bin = at > 0 ? size_t(at) : 0, last = weight_.size() - 1;
    weight_[bin < last ? bin : last] += double(weight);
    sum_[bin < last ? bin : last] += double(weight) * double(value);
  }
  std::vector<float> BestLevels(int k) const;

 private:
  float reach_, per_bin_;
  std::vector<double> weight_, sum_;
};

// k rows of `dim` for n vectors x with weights w (n x dim, or null): Lloyd's rounds from a k-means++ start. The same
// numbers for the same input. even: all numbers of a vector have the same weight, which then does not decide what is
// nearest.
std::vector<float> LearnRows(const float* x, const float* w, bool even, size_t n, int dim, int k, int rounds);
// More rounds from given rows; rows that no vector is nearest to move to the worst vectors.
void RefineRows(const float* x, const float* w, bool even, size_t n, int dim, int rounds, std::vector<float>& rows);

}  // namespace edgequant
