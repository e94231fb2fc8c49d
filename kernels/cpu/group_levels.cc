#include "kernels/cpu/group_levels.h"

#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/group_levels.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/search_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Numbers of 16 groups side by side, and where they came from sorted along the columns.
class GroupLevels {
 public:
  GroupLevels(size_t n, int k)
      : n_(n), k_(size_t(k)), inverse_(n + 1), memory_((4 * (n + 1) + 2 * n + (n + 1) * size_t(k)) * kColumns + 16) {
    float* at = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64 / sizeof(float);
    const auto take = [&](size_t rows) {
      float* const p = at;
      at += rows * kColumns;
      return p;
    };
    sorted_ = take(n), weight_ = take(n);
    sums_ = take(n + 1), weights_ = take(n + 1), gain_ = take(n + 1), next_ = take(n + 1);
    cuts_ = take((n + 1) * k_);
    for (size_t i = 1; i <= n; ++i) inverse_[i] = 1 / float(i);
  }

  // x of 16 groups, and w or null -> levels[j], k of each.
  void Run(const float* const* x, const float* const* w, float* const* levels) {
    for (size_t i = 0; i < n_; ++i)
      for (size_t j = 0; j < size_t(kColumns); ++j) {
        sorted_[i * kColumns + j] = x[j][i];
        weight_[i * kColumns + j] = w ? w[j][i] : 1.0f;
      }
    if (w) Cut<true>();
    else Cut<false>();
    Read(levels);
  }

 private:
  template <bool kWeights>
  void Cut() {
    const DF d;
    Sort<kWeights>();
    for (int c = 0; c < kColumns; c += LanesF()) {
      Center(c);
      for (size_t j = 0; j <= n_; ++j) {
        const VF s = hn::Load(d, sums_ + j * kColumns + c);
        hn::Store(hn::Mul(hn::Mul(s, s), Inverse(d, hn::Load(d, weights_ + j * kColumns + c))), d, gain_ + j * kColumns + c);
      }
      for (size_t level = 1; level < k_; ++level) AddLevel<kWeights>(c, level);
    }
  }

  // Batcher's odd-even merge sort: the same comparisons in every lane.
  template <bool kWeights>
  HWY_INLINE void Sort() {
    const DF d;
    for (size_t p = 1; p < n_; p *= 2)
      for (size_t q = p; q > 0; q /= 2)
        for (size_t j = q % p; j + q < n_; j += 2 * q)
          for (size_t i = j; i < j + q && i + q < n_; ++i) {
            if (i / (2 * p) != (i + q) / (2 * p)) continue;
            for (int c = 0; c < kColumns; c += LanesF()) {
              float *const low = sorted_ + i * kColumns + c, *const high = sorted_ + (i + q) * kColumns + c;
              const VF a = hn::Load(d, low), b = hn::Load(d, high);
              hn::Store(hn::Min(a, b), d, low);
              hn::Store(hn::Max(a, b), d, high);
              if constexpr (kWeights) {
                float *const low_w = weight_ + i * kColumns + c, *const high_w = weight_ + (i + q) * kColumns + c;
                const VF wa = hn::Load(d, low_w), wb = hn::Load(d, high_w);
                const auto swap = hn::Gt(a, b);
                hn::Store(hn::IfThenElse(swap, wb, wa), d, low_w);
                hn::Store(hn::IfThenElse(swap, wa, wb), d, high_w);
              }
            }
          }
  }

  // Running sums of the weights, and of the numbers less their mean in units of their range: nothing overflows.
  HWY_INLINE void Center(int c) {
    const DF d;
    const VF low = hn::Load(d, sorted_ + c), high = hn::Load(d, sorted_ + (n_ - 1) * kColumns + c);
    VF sum = hn::Zero(d), weight = sum, at = sum, total = sum;
    const VF range = hn::Sub(hn::Mul(high, hn::Set(d, 0.5f)), hn::Mul(low, hn::Set(d, 0.5f)));
    const VF unit = Inverse(d, range);
    const VF middle = hn::MulAdd(high, hn::Set(d, 0.5f), hn::Mul(low, hn::Set(d, 0.5f)));
    for (size_t i = 0; i < n_; ++i) {
      const VF wv = hn::Load(d, weight_ + i * kColumns + c);
      sum = hn::MulAdd(wv, hn::Mul(hn::Sub(hn::Load(d, sorted_ + i * kColumns + c), middle), unit), sum);
      total = hn::Add(total, wv);
    }
    const VF mean = hn::Mul(sum, Inverse(d, total));
    hn::Store(hn::Zero(d), d, sums_ + c);
    hn::Store(hn::Zero(d), d, weights_ + c);
    for (size_t i = 0; i < n_; ++i) {
      const VF wv = hn::Load(d, weight_ + i * kColumns + c);
      const VF v = hn::Sub(hn::Mul(hn::Sub(hn::Load(d, sorted_ + i * kColumns + c), middle), unit), mean);
      at = hn::MulAdd(wv, v, at);
      weight = hn::Add(weight, wv);
      hn::Store(at, d, sums_ + (i + 1) * kColumns + c);
      hn::Store(weight, d, weights_ + (i + 1) * kColumns + c);
    }
  }

  // One level more. What a level for the numbers [i, j) takes away of the squared error: (sum of w x)^2 / sum of w.
  template <bool kWeights>
  HWY_INLINE void AddLevel(int c, size_t level) {
    const DF d;
    [[maybe_unused]] const VF least =  // smaller differences of running sums are noise
        hn::MulAdd(hn::Load(d, weights_ + n_ * kColumns + c), hn::Set(d, 1e-6f), hn::Set(d, 1e-30f));
    const size_t first = level + 1 == k_ ? n_ : 0;  // the last level ends with all numbers
    for (size_t j = first; j <= n_; ++j) {
      VF best = hn::Load(d, gain_ + j * kColumns + c), cut = hn::Set(d, float(j));  // an empty level
      const VF sum = hn::Load(d, sums_ + j * kColumns + c);
      [[maybe_unused]] const VF weight = hn::Load(d, weights_ + j * kColumns + c);
      for (size_t i = level; i < j; ++i) {
        const VF s = hn::Sub(sum, hn::Load(d, sums_ + i * kColumns + c)), square = hn::Mul(s, s), before = hn::Load(d, gain_ + i * kColumns + c);
        VF gain;
        if constexpr (kWeights) {
          const VF a = hn::Sub(weight, hn::Load(d, weights_ + i * kColumns + c));
          gain = hn::Add(before, hn::Div(square, hn::Max(a, least)));
        } else {
          gain = hn::MulAdd(square, hn::Set(d, inverse_[j - i]), before);
        }
        cut = hn::IfThenElse(hn::Gt(gain, best), hn::Set(d, float(i)), cut);
        best = hn::Max(best, gain);
      }
      hn::Store(best, d, next_ + j * kColumns + c);
      hn::Store(cut, d, cuts_ + (level * (n_ + 1) + j) * kColumns + c);
    }
    for (size_t j = first; j <= n_; ++j) hn::Store(hn::Load(d, next_ + j * kColumns + c), d, gain_ + j * kColumns + c);
  }

  // Means between the cuts, from the numbers themselves.
  void Read(float* const* levels) const {
    for (size_t c = 0; c < size_t(kColumns); ++c) {
      size_t end = n_;
      for (size_t level = k_; level-- > 0;) {
        const size_t begin = level ? size_t(cuts_[(level * (n_ + 1) + end) * kColumns + c]) : 0;
        double sum = 0, weight = 0;
        for (size_t i = begin; i < end; ++i) {
          sum += double(weight_[i * kColumns + c]) * double(sorted_[i * kColumns + c]);
          weight += double(weight_[i * kColumns + c]);
        }
        levels[c][level] = weight > 0 ? float(sum / weight) : sorted_[(begin < n_ ? begin : n_ - 1) * kColumns + c];
        end = begin;
      }
    }
  }

  size_t n_, k_;
  std::vector<float> inverse_, memory_;
  float *sorted_, *weight_, *sums_, *weights_, *gain_, *next_, *cuts_;
};

void BestGroupLevelsTargeted(const float* x, const float* w, size_t groups, size_t n, int k, float* levels) {
  GroupLevels search(n, k);
  std::vector<float> unused(static_cast<size_t>(k));
  for (size_t first = 0; first < groups; first += kColumns) {
    const float *from[kColumns], *weights[kColumns];
    float* to[kColumns];
    for (size_t j = 0; j < size_t(kColumns); ++j) {
      const bool there = first + j < groups;
      from[j] = x + (there ? first + j : first) * n;
      weights[j] = w ? w + (from[j] - x) : nullptr;
      to[j] = there ? levels + (first + j) * size_t(k) : unused.data();
    }
    search.Run(from, w ? weights : nullptr, to);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
HWY_EXPORT(BestGroupLevelsTargeted);
void BestGroupLevels(const float* x, const float* w, size_t groups, size_t n, int k, float* levels) {
  HWY_DYNAMIC_DISPATCH(BestGroupLevelsTargeted)(x, w, groups, n, k, levels);
}
}  // namespace edgequant
#endif
