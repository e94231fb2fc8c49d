// The error of each sub-block of a tile as a function of its scale, and the super-scales that follow from it.
#if defined(EDGEQUANT_GRID_CURVE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_CURVE_INL_H_
#undef EDGEQUANT_GRID_CURVE_INL_H_
#else
#define EDGEQUANT_GRID_CURVE_INL_H_
#endif

#include "kernels/cpu/grid_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <int kDim, int kLevels>
class GridCurve : public GridTile {
 public:
  GridCurve(const GridProblem& p, GridWork& g) : GridTile(p, g) { SetInterpolation(); }

 protected:
  // The grid's numbers at the lanes' scales, for group e. sign: 0 +delta, 1 -delta, 2 as g.minus says.
  void SetLevels(int e, int sign) {
    const DF d;
    const DH dh;
    alignas(64) int16_t s[kGridLanes];
    for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
      const VF f = hn::Mul(hn::Load(d, g_.scale + c), hn::Load(d, g_.factor[e] + c));
      hn::Store(hn::DemoteTo(dh, hn::NearestInt(hn::Min(f, hn::Set(d, 32767.0f)))), dh, s + c);
    }
    const D16 d16;
    if (sign < 2) {
      for (int l = 0; l < kLevels; ++l)
        for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d16))
          hn::Store(hn::MulFixedPoint15(hn::Load(d16, s + c), hn::Load(d16, g_.value[sign][l] + c)), d16,
                    g_.level[l] + c);
    } else {
      alignas(64) int16_t mask[kGridLanes];
      for (int j = 0; j < kGridLanes; ++j) mask[j] = int16_t(-g_.minus[e][j]);
      for (int l = 0; l < kLevels; ++l)
        for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d16)) {
          const V16 m = hn::Load(d16, mask + c);
          const V16 v =
              hn::Or(hn::And(m, hn::Load(d16, g_.value[1][l] + c)), hn::AndNot(m, hn::Load(d16, g_.value[0][l] + c)));
          hn::Store(hn::MulFixedPoint15(hn::Load(d16, s + c), v), d16, g_.level[l] + c);
        }
    }
  }

  // to (+)= the 16-bit costs times the group's unit.
  void AddCost(const uint16_t* cost, int e, float* to) {
    const DF d;
    const DI di;
    const DHU du;
    for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
      const VF v = hn::ConvertTo(d, hn::PromoteTo(di, hn::Load(du, cost + c)));
      hn::Store(hn::MulAdd(v, hn::Load(d, g_.unit[e] + c), hn::Load(d, to + c)), d, to + c);
    }
  }

  // The least costs of group e at g.scale, added to `to`.
  void AddGroup(int e, float* to) {
    for (int row = 8 * e; row < 8 * e + 8; row += kDim) {
      if (t_.coarse)
        LeastCost<kDim, kLevels, uint8_t>(ix_, g_, row);
      else
        LeastCost<kDim, kLevels, uint16_t>(ix_, g_, row);
      AddCost(g_.best, e, to);
    }
  }

  // The least error of each sub-block at g.scale, into g.error. With `both`, the best side of delta into g.minus; else
  // that one is taken.
  void Trial(bool both) {
    alignas(64) float other[kGridLanes] = {};
    std::fill_n(g_.error, kGridLanes, 0.0f);
    for (int e = 0; e < groups_; ++e) {
      if (p_.delta_group == 0 || !both) {
        SetLevels(e, p_.delta_group == 0 ? 0 : 2);
        AddGroup(e, g_.error);
      } else if (p_.delta_group == p_.sub) {
        SetLevels(e, 0);
        AddGroup(e, g_.error);
        SetLevels(e, 1);
        AddGroup(e, other);
      } else {
        alignas(64) float sides[2][kGridLanes] = {};
        for (int side = 0; side < 2; ++side) {
          SetLevels(e, side);
          AddGroup(e, sides[side]);
        }
        for (int j = 0; j < kGridLanes; ++j) {
          g_.minus[e][j] = sides[1][j] < sides[0][j];
          g_.error[j] += std::min(sides[0][j], sides[1][j]);
        }
      }
    }
    if (both && p_.delta_group == p_.sub)
      for (int j = 0; j < kGridLanes; ++j) {
        const bool minus = other[j] < g_.error[j];
        for (int e = 0; e < groups_; ++e) g_.minus[e][j] = minus;
        if (minus) g_.error[j] = other[j];
      }
  }

  // interpolation_[k][m]: what sample m adds to coefficient k of the polynomial through all samples (Lagrange).
  void SetInterpolation() {
    const int n = t_.samples;
    for (int m = 0; m < n; ++m) {
      double poly[kGridSamples] = {1};
      for (int j = 0, degree = 0; j < n; ++j) {
        if (j == m) continue;
        const double root = Position(j), over = 1 / (Position(m) - root);
        ++degree;
        for (int k = degree; k >= 0; --k)
          poly[k] = ((k > 0 ? poly[k - 1] : 0) - (k < degree ? poly[k] : 0) * root) * over;
      }
      for (int k = 0; k < n; ++k) interpolation_[k][m] = float(poly[k]);
    }
  }
  float Position(int sample) const { return -1 + 2 * float(sample) / float(t_.samples - 1); }

  // Tries scales over each sub-block's range; leaves the curve and where it is lowest.
  void Curve() {
    alignas(64) float sample[kGridSamples][kGridLanes];
    const int middle = t_.samples / 2;
    for (int k = 0; k < t_.samples; ++k) {  // the middle first: it decides on the side of delta
      const int m = k == 0 ? middle : k <= middle ? k - 1 : k;
      for (int j = 0; j < kGridLanes; ++j) g_.scale[j] = g_.center[j] + Position(m) * g_.reach[j];
      Trial(k == 0 || t_.both);
      std::copy_n(g_.error, kGridLanes, sample[m]);
    }
    const DF d;
    for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
      for (int k = 0; k < t_.samples; ++k) {
        VF sum = hn::Zero(d);
        for (int m = 0; m < t_.samples; ++m)
          sum = hn::MulAdd(hn::Load(d, sample[m] + c), hn::Set(d, interpolation_[k][m]), sum);
        hn::Store(sum, d, g_.curve[k] + c);
      }
      VF least = hn::Set(d, 1e38f), at = hn::Zero(d);
      for (int i = -8; i <= 8; ++i) {
        const VF p = hn::Set(d, float(i) / 8);
        const VF e = Polynomial(p, [&](int k) HWY_ATTR { return hn::Load(d, g_.curve[k] + c); });
        const auto better = hn::Lt(e, least);
        least = hn::IfThenElse(better, e, least);
        at = hn::IfThenElse(better, p, at);
      }
      hn::Store(hn::MulAdd(at, hn::Load(d, g_.reach + c), hn::Load(d, g_.center + c)), d, g_.lowest + c);
    }
  }

  template <class Coefficient>
  HWY_INLINE VF Polynomial(VF p, const Coefficient& coefficient) const {
    VF sum = coefficient(t_.samples - 1);
    for (int k = t_.samples - 2; k >= 0; --k) sum = hn::MulAdd(sum, p, coefficient(k));
    return sum;
  }

  // Of the two multiples 2 k + 1 of `step` around the lowest point of a curve, the better one and its error. `read`
  // takes an array of the tile to the sub-block (or sub-blocks) in question.
  template <class Read>
  HWY_INLINE VF BestK(VF step, const Read& read, VF* k) const {
    const DF d;
    const VF one = hn::Set(d, 1.0f), reach = read(g_.reach), over = hn::Div(one, hn::Max(reach, hn::Set(d, 1e-30f)));
    const auto error = [&](VF s) HWY_ATTR {
      const VF p = hn::Mul(hn::Sub(s, read(g_.center)), over);
      const VF in = hn::Min(hn::Max(p, hn::Neg(one)), one), out = hn::Mul(hn::Sub(p, in), reach);
      return hn::MulAdd(hn::Mul(out, out), read(g_.beyond),
                        Polynomial(in, [&](int i) HWY_ATTR { return read(g_.curve[i]); }));
    };
    const VF below = hn::Floor(hn::Mul(hn::Sub(hn::Div(read(g_.lowest), step), one), hn::Set(d, 0.5f)));
    const VF k0 = hn::Min(hn::Max(below, hn::Zero(d)), hn::Set(d, float(p_.scales - 2)));
    const VF s0 = hn::Mul(hn::MulAdd(k0, hn::Set(d, 2.0f), one), step);
    const VF e0 = error(s0), e1 = error(hn::MulAdd(step, hn::Set(d, 2.0f), s0));
    *k = hn::IfThenElse(hn::Lt(e1, e0), hn::Add(k0, one), k0);
    return hn::Min(e0, e1);
  }

  // The scales that the curves promise to be best under d.
  void ExpectScales(const float* super, int n) {
    alignas(64) float step[kGridLanes];
    alignas(64) int32_t k[kGridLanes];
    for (int b = 0; b < BlocksPerTile(); ++b)
      std::fill_n(step + b * subs_, subs_, b < n && super[b] > 0 ? super[b] * p_.unit : 1.0f);
    const DF d;
    const DI di;
    for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
      VF best;
      BestK(hn::Load(d, step + c), [&](const float* p) HWY_ATTR { return hn::Load(d, p + c); }, &best);
      hn::Store(hn::ConvertTo(di, best), di, k + c);
    }
    for (int j = 0; j < kGridLanes; ++j) g_.k[j] = uint8_t(k[j]);
  }

  // The super-scales under which the sub-blocks' curves promise the least error, best first.
  void ChooseSupers(int b, float* super) {
    const DF d;
    float most = 0;
    for (int j = 0; j < subs_; ++j) most = std::max(most, g_.lowest[b * subs_ + j]);
    if (!(most > 0)) return;
    alignas(64) float value[64], step[64], total[64];
    for (int c = 0; c < t_.candidates; ++c) {
      value[c] = most / p_.unit / (t_.max_low + (t_.max_high - t_.max_low) * float(c) / float(t_.candidates - 1));
      step[c] = value[c] * p_.unit;
    }
    for (int c = 0; c < t_.candidates; c += int(hn::Lanes(d))) {
      VF sum = hn::Zero(d), k;
      for (int j = b * subs_; j < (b + 1) * subs_; ++j)
        sum = hn::Add(sum, BestK(hn::Load(d, step + c), [&](const float* p) HWY_ATTR { return hn::Set(d, p[j]); }, &k));
      hn::Store(sum, d, total + c);
    }
    for (int s = 0; s < t_.supers; ++s) {
      const int c = int(std::min_element(total, total + t_.candidates) - total);
      super[s] = RoundD(b, value[c]);
      for (int near = std::max(c - 2, 0); near <= std::min(c + 2, t_.candidates - 1); ++near) total[near] = 1e38f;
    }
  }

 private:
  float interpolation_[kGridSamples][kGridSamples] = {};
};

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif
