#include "kernels/cpu/group_levels.h"

#include <algorithm>
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
  GroupLevels(size_t n, int k, bool quick)
      : n_(n),
        k_(size_t(k)),
        step_(quick ? StepOf(n, size_t(k)) : 1),
        inverse_(n + 1),
        memory_((4 * (n + 1) + 2 * n + (n + 1) * size_t(k) + kAtOnce) * kColumns + 16) {
    float* at = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64 / sizeof(float);
    const auto take = [&](size_t rows) {
      float* const p = at;
      at += rows * kColumns;
      return p;
    };
    sorted_ = take(n), weight_ = take(n);
    sums_ = take(n + 1), weights_ = take(n + 1), gain_ = take(n + 1), next_ = take(n + 1);
    cuts_ = take((n + 1) * k_);
    limits_ = take(kAtOnce);
    for (size_t i = 1; i <= n; ++i) inverse_[i] = 1 / float(i);
  }

  // x of 16 groups, and w or null -> levels[j], k of each.
  void Run(const float* const* x, const float* const* w, float* const* levels) {
    Fill(x, sorted_);
    if (w) Fill(w, weight_);
    else std::fill_n(weight_, n_ * kColumns, 1.0f);
    if (w) Cut<true>();
    else Cut<false>();
    if (step_ == 1) return Read(levels);
    if (w) Settle<true>(levels);
    else Settle<false>(levels);
  }

 private:
  static constexpr size_t kAtOnce = kMostGroupLevels;  // limits

  // How far apart the cuts are that are looked at: some for each level, of a whole number in a group.
  static size_t StepOf(size_t n, size_t k) {
    size_t step = 1;
    while (n % (2 * step) == 0 && n / (2 * step) >= (k <= 4 ? 4 : 8) * k) step *= 2;
    return step;
  }

  void Fill(const float* const* from, float* to) const {
    size_t i = 0;
    for (; i + 4 <= n_; i += 4) {
      const float* at[kColumns];
      for (int j = 0; j < kColumns; ++j) at[j] = from[j] + i;
      Transpose<4>(at, reinterpret_cast<float(*)[kColumns]>(to + i * kColumns));
    }
    for (; i < n_; ++i)
      for (int j = 0; j < kColumns; ++j) to[i * kColumns + size_t(j)] = from[j][i];
  }

  template <bool kWeights>
  void Cut() {
    const DF d;
    Sort<kWeights>();
    for (int c = 0; c < kColumns; c += LanesF()) {
      Center(c);
      for (size_t j = 0; j <= n_; j += step_) {
        const VF s = hn::Load(d, sums_ + j * kColumns + c);
        hn::Store(hn::Mul(hn::Mul(s, s), Inverse(d, hn::Load(d, weights_ + j * kColumns + c))), d,
                  gain_ + j * kColumns + c);
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
    for (size_t j = first; j <= n_; j += step_) {
      VF best = hn::Load(d, gain_ + j * kColumns + c), cut = hn::Set(d, float(j));  // an empty level
      const VF sum = hn::Load(d, sums_ + j * kColumns + c);
      [[maybe_unused]] const VF weight = hn::Load(d, weights_ + j * kColumns + c);
      for (size_t i = (level + step_ - 1) / step_ * step_; i < j; i += step_) {
        const VF s = hn::Sub(sum, hn::Load(d, sums_ + i * kColumns + c)), square = hn::Mul(s, s),
                 before = hn::Load(d, gain_ + i * kColumns + c);
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
    for (size_t j = first; j <= n_; j += step_)
      hn::Store(hn::Load(d, next_ + j * kColumns + c), d, gain_ + j * kColumns + c);
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

  // Levels between the limits, and limits between the levels, in turns from the cuts on; of numbers in [-1, 1].
  template <bool kWeights>
  void Settle(float* const* levels) {
    const DF d;
    for (size_t c = 0; c < size_t(kColumns); ++c) {
      size_t at = n_;
      for (size_t level = k_; --level > 0;) {
        at = size_t(cuts_[(level * (n_ + 1) + at) * kColumns + c]);
        const float below = sorted_[(at ? at - 1 : 0) * kColumns + c],
                    above = sorted_[(at < n_ ? at : n_ - 1) * kColumns + c];
        limits_[(level - 1) * kColumns + c] = below * 0.5f + above * 0.5f;
      }
    }
    alignas(64) float found[kMostGroupLevels][kColumns];
    for (int c = 0; c < kColumns; c += LanesF()) {
      const VF half = hn::Set(d, 0.5f), low = hn::Load(d, sorted_ + c),
               high = hn::Load(d, sorted_ + (n_ - 1) * kColumns + c);
      const VF range = hn::Sub(hn::Mul(high, half), hn::Mul(low, half)),
               middle = hn::MulAdd(high, half, hn::Mul(low, half));
      const VF unit = Inverse(d, range);
      VF all_x = hn::Zero(d), all_w = all_x, limit[kAtOnce], level[kMostGroupLevels];
      for (size_t i = 0; i < n_; ++i) {
        float* const x = sorted_ + i * kColumns + c;
        const VF v = hn::Mul(hn::Sub(hn::Load(d, x), middle), unit), w = hn::Load(d, weight_ + i * kColumns + c);
        hn::Store(v, d, x);
        all_x = hn::MulAdd(v, w, all_x);
        all_w = hn::Add(all_w, w);
      }
      for (size_t l = 0; l + 1 < k_; ++l)
        limit[l] = hn::Mul(hn::Sub(hn::Load(d, limits_ + l * kColumns + c), middle), unit);
      for (int round = 0; round < (k_ <= 4 ? 3 : 6); ++round) {
        VF above_x[kMostGroupLevels], above_w[kMostGroupLevels];
        size_t l = 0;
        for (; l + 3 < k_; l += 3) Above<kWeights, 3>(c, limit + l, above_x + l, above_w + l);
        for (; l + 1 < k_; ++l) Above<kWeights, 1>(c, limit + l, above_x + l, above_w + l);
        VF x = all_x, w = all_w, least = hn::Set(d, -1.0f);
        for (l = 0; l < k_; ++l) {  // a level stays between its limits, also if nothing is there
          const bool last = l + 1 == k_;
          const VF next_x = last ? hn::Zero(d) : above_x[l], next_w = last ? hn::Zero(d) : above_w[l],
                   most = last ? hn::Set(d, 1.0f) : limit[l];
          const VF mean = hn::Mul(hn::Sub(x, next_x), Inverse(d, hn::Sub(w, next_w)));
          level[l] = hn::Min(hn::Max(mean, least), most);
          x = next_x, w = next_w, least = most;
        }
        for (l = 0; l + 1 < k_; ++l) limit[l] = hn::Mul(half, hn::Add(level[l], level[l + 1]));
      }
      for (size_t l = 0; l < k_; ++l) hn::Store(hn::MulAdd(level[l], range, middle), d, found[l] + c);
    }
    for (size_t j = 0; j < size_t(kColumns); ++j)
      for (size_t l = 0; l < k_; ++l) levels[j][l] = found[l][j];
  }

  // Sums of weight * x and weight of the numbers above some limits.
  template <bool kWeights, int kLimits>
  HWY_INLINE void Above(int c, const VF* limit, VF* above_x, VF* above_w) const {
    const DF d;
    const VF one = hn::Set(d, 1.0f);
    VF x[kLimits], w[kLimits], limits[kLimits];
    for (int l = 0; l < kLimits; ++l) x[l] = w[l] = hn::Zero(d), limits[l] = limit[l];
    for (size_t i = 0; i < n_; ++i) {
      const VF v = hn::Load(d, sorted_ + i * kColumns + c),
               by = kWeights ? hn::Load(d, weight_ + i * kColumns + c) : one;
      const VF wx = kWeights ? hn::Mul(v, by) : v;
      for (int l = 0; l < kLimits; ++l) {
        const auto above = hn::Gt(v, limits[l]);
        x[l] = hn::Add(x[l], hn::IfThenElseZero(above, wx));
        w[l] = hn::Add(w[l], hn::IfThenElseZero(above, by));
      }
    }
    for (int l = 0; l < kLimits; ++l) above_x[l] = x[l], above_w[l] = w[l];
  }

  size_t n_, k_, step_;
  std::vector<float> inverse_, memory_;
  float *sorted_, *weight_, *sums_, *weights_, *gain_, *next_, *cuts_, *limits_;
};

void BestGroupLevelsTargeted(const float* x, const float* w, size_t groups, size_t n, int k, bool quick,
                             float* levels) {
  GroupLevels search(n, k, quick);
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
void BestGroupLevels(const float* x, const float* w, size_t groups, size_t n, int k, bool quick, float* levels) {
  HWY_DYNAMIC_DISPATCH(BestGroupLevelsTargeted)(x, w, groups, n, k, quick, levels);
}
}  // namespace edgequant
#endif
