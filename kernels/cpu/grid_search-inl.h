// The search over the scales of a grid format: one sub-block per lane, 32 at a time.
#if defined(EDGEQUANT_GRID_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_SEARCH_INL_H_
#undef EDGEQUANT_GRID_SEARCH_INL_H_
#else
#define EDGEQUANT_GRID_SEARCH_INL_H_
#endif

#include "kernels/cpu/grid_curve-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <int kDim, int kLevels>
class GridSearcher : public GridCurve<kDim, kLevels> {
  using Base = GridCurve<kDim, kLevels>;
  using Base::g_, Base::groups_, Base::ix_, Base::p_, Base::subs_, Base::t_;
  using Base::ChooseSupers, Base::Clamp, Base::Curve, Base::ExpectScales, Base::F16, Base::Load,
      Base::Prepare, Base::RoundD, Base::Scale, Base::SetLevels, Base::Trial;

 public:
  using Base::Base, Base::BlocksPerTile;

  // n <= BlocksPerTile() blocks at x; importance[b] is the row of block b, or null. least[b]: its error.
  void Run(const float* x, const float* const* importance, int n, GridBlock* out, double* least) {
    Load(x, importance, n);
    Prepare(nullptr);
    Curve();
    float d[4], super[4][8] = {};
    std::fill_n(least, n, 1e300);
    for (int b = 0; b < n; ++b) ChooseSupers(b, super[b]);
    for (int candidate = 0; candidate < t_.supers; ++candidate) {
      for (int b = 0; b < n; ++b) d[b] = super[b][candidate];
      ExpectScales(d, n);
      for (int round = 0; round <= t_.refine; ++round) {
        ChooseScales(d, n);
        Pick();
        for (int b = 0; b < n; ++b) {
          const float next = Refit(b, d[b], &least[b], &out[b]);
          if (next > 0 && round < t_.refine)
            for (int j = b * subs_; j < (b + 1) * subs_; ++j)
              g_.k[j] = uint8_t(Clamp(int(std::lrint((d[b] * float(2 * g_.k[j] + 1) / next - 1) / 2))));
          d[b] = next;
        }
      }
    }
  }

 private:
  void SetScales(const float* d, int n) {
    bool high = false;
    std::fill_n(g_.scale, kGridLanes, 0.0f);
    for (int b = 0; b < n; ++b)
      for (int j = b * subs_; j < (b + 1) * subs_; ++j) {
        g_.scale[j] = Scale(d[b], g_.k[j]);
        for (int e = 0; e < groups_; ++e) high |= g_.scale[j] * g_.factor[e][j] > 32767.5f;
      }
    if (high) Prepare(g_.scale);
  }

  // Tries the scales around g.k, with all points picked anew, and leaves the best in g.k, g.scale and g.minus.
  void ChooseScales(const float* d, int n) {
    if (t_.neighbours > 1 || t_.both) {
      alignas(64) float least[kGridLanes];
      uint8_t center[kGridLanes], k[kGridLanes] = {}, minus[4][kGridLanes] = {};
      std::fill_n(least, kGridLanes, 1e38f);
      std::copy_n(g_.k, kGridLanes, center);
      for (int step = 0; step < t_.neighbours; ++step) {
        const int by = (step & 1 ? 1 : -1) * ((step + 1) / 2);
        for (int j = 0; j < kGridLanes; ++j) g_.k[j] = uint8_t(Clamp(center[j] + by));
        SetScales(d, n);
        Trial(true);
        for (int j = 0; j < kGridLanes; ++j) {
          if (!(g_.error[j] < least[j])) continue;
          least[j] = g_.error[j];
          k[j] = g_.k[j];
          for (int e = 0; e < groups_; ++e) minus[e][j] = g_.minus[e][j];
        }
      }
      std::copy_n(k, kGridLanes, g_.k);
      std::memcpy(g_.minus, minus, sizeof minus);
    }
    SetScales(d, n);
  }

  // The points at g.scale: codes, signs and sums.
  void Pick() {
    std::fill_n(g_.sum_xq, kGridLanes, 0.0f);
    std::fill_n(g_.sum_qq, kGridLanes, 0.0f);
    for (int e = 0; e < groups_; ++e) {
      if (t_.coarse && p_.signs != GridSigns::kEven) SetLevels(e, p_.delta_group == 0 ? 0 : 2);
      for (int v = 0; v < 8 / kDim; ++v) {
        if (t_.coarse && p_.signs != GridSigns::kEven)
          LeastPoint<kDim, kLevels>(ix_, g_, 8 * e + v * kDim, v);
        else if (p_.signs == GridSigns::kEven)
          LeastKey<kDim, kLevels, true>(ix_, g_, 8 * e + v * kDim, v, p_.signs, p_.delta);
        else
          LeastKey<kDim, kLevels, false>(ix_, g_, 8 * e + v * kDim, v, p_.signs, p_.delta);
      }
      Decide<kDim>(ix_, g_, e, p_.signs, p_.delta);
    }
  }

  // Least-squares super-scale for the picked codes. Keeps the block if it is the best so far; returns the super-scale.
  float Refit(int b, float d, double* least, GridBlock* out) {
    double xq = 0, qq = 0, energy = 0;
    for (int j = b * subs_; j < (b + 1) * subs_; ++j) {
      const double m = Scale(1, g_.k[j]);
      energy += g_.energy[j];
      xq += m * g_.sum_xq[j];
      qq += m * m * g_.sum_qq[j];
    }
    const float fit = d > 0 && qq > 0 ? RoundD(b, float(xq / qq)) : 0;
    const auto error = [&](double s) { return energy - 2 * s * xq + s * s * qq; };
    const float next = error(fit) <= error(d) ? fit : d;
    if (error(next) < *least) {
      *least = error(next);
      out->d = F16(b, next);
      for (int j = 0; j < subs_; ++j) {
        const int lane = b * subs_ + j;
        out->scale[j] = g_.k[lane];
        for (int e = 0; e < groups_; ++e) {
          out->negative[j * groups_ + e] = uint8_t(g_.negative[e][lane]);
          out->minus[j * groups_ + e] = p_.delta != 0 ? g_.minus[e][lane] : 0;
          for (int v = 0; v < 8 / kDim; ++v)
            out->code[(j * groups_ + e) * (8 / kDim) + v] = uint16_t(g_.code[e * (8 / kDim) + v][lane]);
        }
      }
    }
    return next;
  }
};

// True for magnitudes so much alike that few scales suit them, each for one number of the grid: their fourth moment is
// below 1.7 times the square of the second (Gaussian: 3, uniform: 1.8).
inline bool IsEven(const float* x) {
  const hn::CappedTag<float, 16> d;
  hn::Vec<decltype(d)> second = hn::Zero(d), fourth = second, most = second;
  for (size_t i = 0; i < kGridBlock; i += hn::Lanes(d)) most = hn::Max(most, hn::Abs(hn::LoadU(d, x + i)));
  const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  if (!(largest > 1e-30f)) return false;
  const auto inverse = hn::Set(d, 1 / largest);
  for (size_t i = 0; i < kGridBlock; i += hn::Lanes(d)) {
    const auto u = hn::Mul(hn::LoadU(d, x + i), inverse), square = hn::Mul(u, u);
    second = hn::Add(second, square);
    fourth = hn::MulAdd(square, square, fourth);
  }
  const float sum = hn::GetLane(hn::SumOfLanes(d, second)) / kGridBlock;
  return hn::GetLane(hn::SumOfLanes(d, fourth)) / kGridBlock < 1.7f * sum * sum;
}

template <int kDim, int kLevels>
void SearchGridAs(const GridProblem& p, const float* x, size_t blocks, const float* importance, size_t column,
                  size_t cols, GridWork& work, GridBlock* out) {
  GridSearcher<kDim, kLevels> searcher(p, work);
  const size_t step = size_t(searcher.BlocksPerTile());
  GridProblem second = p, third = p;
  if (p.also) second.tuning = *p.also;
  if (p.even) third.tuning = *p.even;
  for (size_t b = 0; b < blocks; b += step) {
    const float* rows[4] = {};
    double least[4], other[4];
    const size_t n = std::min(step, blocks - b);
    for (size_t i = 0; i < n && importance; ++i) rows[i] = importance + (column + (b + i) * kGridBlock) % cols;
    const float* at = x + b * kGridBlock;
    searcher.Run(at, rows, int(n), out + b, least);
    GridBlock found[4];
    bool chosen[4] = {true, true, true, true};
    const auto keep = [&](uint16_t sign) {
      for (size_t i = 0; i < n; ++i) {
        if (!chosen[i] || !(other[i] < least[i])) continue;
        least[i] = other[i];
        out[b + i] = found[i];
        out[b + i].d ^= sign;
      }
    };
    if (p.also) {
      GridSearcher<kDim, kLevels>(second, work).Run(at, rows, int(n), found, other);
      keep(0);
    }
    if (p.even) {
      for (size_t i = 0; i < n; ++i) chosen[i] = IsEven(at + i * kGridBlock);
      if (std::find(chosen, chosen + n, true) != chosen + n) {
        GridSearcher<kDim, kLevels>(third, work).Run(at, rows, int(n), found, other);
        keep(0);
      }
    }
    if (p.mirror) {
      float negated[4 * kGridBlock];
      for (size_t i = 0; i < n * kGridBlock; ++i) negated[i] = -at[i];
      searcher.Run(negated, rows, int(n), found, other);
      keep(0x8000);
    }
  }
}

void SearchGridTargeted(const GridProblem& p, const float* x, size_t blocks, const float* importance, size_t column,
                        size_t cols, GridWork& work, GridBlock* out) {
  if (p.index->dim == 8)
    SearchGridAs<8, 3>(p, x, blocks, importance, column, cols, work, out);
  else
    SearchGridAs<4, 8>(p, x, blocks, importance, column, cols, work, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif
