// The search over the scales of a grid format: one sub-block per lane, 32 at a time.
#if defined(EDGEQUANT_GRID_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_SEARCH_INL_H_
#undef EDGEQUANT_GRID_SEARCH_INL_H_
#else
#define EDGEQUANT_GRID_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"
#include "format/decode.h"
#include "kernels/cpu/grid_pick-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DH = hn::Rebind<int16_t, DF>;
using DHU = hn::Rebind<uint16_t, DF>;

template <int kDim, int kLevels>
class GridSearcher {
 public:
  GridSearcher(const GridProblem& p, GridWork& g) : p_(p), ix_(*p.index), t_(p.tuning), g_(g) {
    subs_ = kGridBlock / p.sub;
    groups_ = p.sub / 8;
    rms_ = std::sqrt(ix_.mean_square + p.delta * p.delta);
    largest_ = std::max(std::abs(ix_.value[0]), std::abs(ix_.value[kLevels - 1])) + p.delta;
    SetInterpolation();
    for (int sign = 0; sign < 2; ++sign)
      for (int l = 0; l < kLevels; ++l)
        std::fill_n(g.value[sign][l], kGridLanes,
                    int16_t(std::lrint((ix_.value[l] + (sign ? -p.delta : p.delta)) / largest_ * 32767)));
  }

  int BlocksPerTile() const { return kGridLanes / subs_; }

  // n <= BlocksPerTile() blocks at x; importance[b] is the row of block b, or null.
  void Run(const float* x, const float* const* importance, int n, GridBlock* out) {
    Load(x, importance, n);
    Prepare(nullptr);
    Curve();
    float d[4], super[4][8] = {};
    double least[4] = {1e300, 1e300, 1e300, 1e300};
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
  int Clamp(int k) const { return std::min(std::max(k, 0), p_.scales - 1); }
  float Scale(float d, int k) const { return d * p_.unit * float(2 * k + 1); }
  float RoundD(int b, float d) const { return std::ldexp(F16ToF32(F16(b, d)), -exponent_[b]); }
  uint16_t F16(int b, float d) const {
    return F16FromF32(std::min(std::ldexp(std::max(d, 0.0f), exponent_[b]), 65504.0f));
  }

  // Blocks are scaled to a largest weight in [1/2, 1), so squares neither overflow nor vanish.
  void Load(const float* x, const float* const* importance, int n) {
    const DF d;
    alignas(64) float y[kGridBlock], w[kGridBlock];
    if (n < BlocksPerTile()) {
      std::memset(g_.x, 0, sizeof g_.x);
      for (auto& row : g_.w) std::fill_n(row, kGridLanes, 1.0f);
    }
    for (int b = 0; b < n; ++b, x += kGridBlock) {
      const float* m = importance[b];
      VF largest = hn::Zero(d), most = hn::Zero(d), square = hn::Zero(d), heaviest = hn::Zero(d);
      for (size_t i = 0; i < kGridBlock; i += hn::Lanes(d)) {
        largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
        if (m) most = hn::Max(most, hn::LoadU(d, m + i));
      }
      std::frexp(hn::GetLane(hn::MaxOfLanes(d, largest)), &exponent_[b]);
      const int part = -exponent_[b] / 2;
      const VF half = hn::Set(d, std::ldexp(1.0f, part)), rest = hn::Set(d, std::ldexp(1.0f, -exponent_[b] - part));
      const float top = hn::GetLane(hn::MaxOfLanes(d, most));
      const VF over = hn::Set(d, top > 1e-30f ? 1 / top : 0);
      for (size_t i = 0; i < kGridBlock; i += hn::Lanes(d)) {
        // minus zero becomes zero: signs are read off as bits
        const VF v = hn::Add(hn::Mul(hn::Mul(hn::LoadU(d, x + i), half), rest), hn::Zero(d));
        hn::Store(v, d, y + i);
        hn::Store(top > 1e-30f ? hn::Mul(hn::LoadU(d, m + i), over) : hn::Set(d, 1.0f), d, w + i);
        square = hn::MulAdd(v, v, square);
      }
      const VF spread = hn::Set(d, p_.sigma / kGridBlock * hn::GetLane(hn::SumOfLanes(d, square)));
      for (size_t i = 0; i < kGridBlock; i += hn::Lanes(d)) {
        const VF v = hn::Load(d, y + i), s = hn::MulAdd(v, v, spread);
        VF weight = hn::Load(d, w + i);
        if (p_.weights == GridWeights::kImportanceRms) weight = hn::Mul(weight, hn::Sqrt(s));
        if (p_.weights == GridWeights::kSquare) weight = hn::Mul(weight, s);
        heaviest = hn::Max(heaviest, weight);
        hn::Store(weight, d, w + i);
      }
      // A weight that does not count still gets a sensible code.
      const float mean = p_.weights == GridWeights::kSquare ? hn::GetLane(hn::SumOfLanes(d, square)) / kGridBlock : 0;
      const VF trace = hn::Set(d, std::max({1e-8f * hn::GetLane(hn::MaxOfLanes(d, heaviest)), 0.01f * mean, 1e-30f}));
      for (size_t i = 0; i < kGridBlock; i += hn::Lanes(d)) hn::Store(hn::Add(hn::Load(d, w + i), trace), d, w + i);
      Transpose(y, &g_.x[0][b * subs_]);
      Transpose(w, &g_.w[0][b * subs_]);
    }
    for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
      VF energy = hn::Zero(d), weight = hn::Zero(d), largest = hn::Zero(d), square = hn::Zero(d);
      for (int i = 0; i < p_.sub; ++i) {
        const VF xv = hn::Load(d, g_.x[i] + c), wv = hn::Load(d, g_.w[i] + c);
        energy = hn::MulAdd(hn::Mul(xv, xv), wv, energy);
        square = hn::MulAdd(xv, xv, square);
        weight = hn::Add(weight, wv);
        largest = hn::Max(largest, hn::Abs(xv));
      }
      hn::Store(energy, d, g_.energy + c);
      // Where few weights count, their own size is what matters; but there is no use in scales much larger than those
      // that bring the largest weight to the largest value.
      const VF weighted = hn::Sqrt(hn::Div(energy, weight)),
               plain = hn::Sqrt(hn::Mul(square, hn::Set(d, 1.0f / float(p_.sub))));
      const VF reach = hn::Mul(largest, hn::Set(d, 1 / largest_));
      const VF high = hn::Max(hn::Mul(hn::Min(weighted, plain), hn::Set(d, t_.high / rms_)),
                              hn::Mul(reach, hn::Set(d, t_.high_max)));
      const VF low = hn::Min(hn::Mul(weighted, hn::Set(d, t_.low / rms_)), hn::Mul(reach, hn::Set(d, 0.6f)));
      hn::Store(hn::Mul(hn::Add(high, low), hn::Set(d, 0.5f)), d, g_.center + c);
      hn::Store(hn::Mul(hn::Sub(high, low), hn::Set(d, 0.5f)), d, g_.reach + c);
      hn::Store(hn::Mul(weight, hn::Set(d, rms_ * rms_)), d, g_.beyond + c);
    }
  }

  // The sub-blocks of a block, one after another, to columns of a tile.
  void Transpose(const float* from, float* to) {
#if HWY_TARGET != HWY_SCALAR
    const hn::CappedTag<float, 4> d;
    const hn::Repartition<double, decltype(d)> dd;
    for (int j = 0; j < subs_; j += 4)
      for (int i = 0; i < p_.sub; i += 4) {
        const float* f = from + j * p_.sub + i;
        const auto r0 = hn::LoadU(d, f), r1 = hn::LoadU(d, f + p_.sub), r2 = hn::LoadU(d, f + 2 * p_.sub),
                   r3 = hn::LoadU(d, f + 3 * p_.sub);
        const auto a0 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1)),
                   a1 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
        const auto b0 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3)),
                   b1 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
        float* t = to + i * kGridLanes + j;
        hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, a0, b0)), d, t);
        hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, a0, b0)), d, t + kGridLanes);
        hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, a1, b1)), d, t + 2 * kGridLanes);
        hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, a1, b1)), d, t + 3 * kGridLanes);
      }
#else
    for (int j = 0; j < subs_; ++j)
      for (int i = 0; i < p_.sub; ++i) to[i * kGridLanes + j] = from[j * p_.sub + i];
#endif
  }

  // 16-bit copies. The full scale holds the group's root energy and the largest grid value at scale `at` (null: the
  // largest trial), so nothing is clipped that could be best.
  void Prepare(const float* at) {
    const DF d;
    const DI di;
    const DH dh;
    for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
      const VF most = at ? hn::Load(d, at + c)
                         : hn::Mul(hn::Add(hn::Load(d, g_.center + c), hn::Load(d, g_.reach + c)), hn::Set(d, 1.05f));
      for (int e = 0; e < groups_; ++e) {
        VF energy = hn::Zero(d), wmax = hn::Zero(d), least = hn::Set(d, 1e30f), product = hn::Set(d, 1.0f);
        for (int i = 8 * e; i < 8 * e + 8; ++i) {
          const VF x = hn::Load(d, g_.x[i] + c), w = hn::Load(d, g_.w[i] + c), wx = hn::Mul(w, hn::Abs(x));
          energy = hn::MulAdd(wx, hn::Abs(x), energy);
          wmax = hn::Max(wmax, w);
          least = hn::Min(least, wx);
          product = hn::CopySign(hn::Set(d, 1.0f), hn::Xor(x, product));
        }
        const VF reach = hn::Mul(most, hn::Set(d, largest_));
        const VF full2 = hn::Max(hn::Max(energy, hn::Mul(hn::Mul(reach, reach), wmax)), hn::Set(d, 1e-30f));
        const VF inverse = hn::Div(hn::Set(d, 32760.0f), hn::Sqrt(full2)), root_max = hn::Sqrt(wmax);
        hn::Store(hn::Mul(hn::Mul(root_max, hn::Set(d, largest_)), inverse), d, g_.factor[e] + c);
        hn::Store(full2, d, g_.full[e] + c);
        hn::Store(hn::Mul(full2, hn::Set(d, 32768.0f / (32760.0f * 32760.0f))), d, g_.unit[e] + c);
        const auto odd = hn::Lt(product, hn::Zero(d));
        const VF ratio = hn::Div(hn::Set(d, 32767.0f), root_max);
        auto open = odd;
        for (int i = 8 * e; i < 8 * e + 8; ++i) {
          const VF x = hn::Load(d, g_.x[i] + c), w = hn::Load(d, g_.w[i] + c), root = hn::Sqrt(w);
          VF y = x;
          if (p_.signs != GridSigns::kNone) y = hn::Abs(x);
          if (p_.signs == GridSigns::kEven) {
            const auto flip = hn::And(open, hn::Le(hn::Mul(w, y), least));
            y = hn::IfThenElse(flip, hn::Neg(y), y);
            open = hn::AndNot(flip, open);
          }
          hn::Store(hn::DemoteTo(dh, hn::NearestInt(hn::Mul(hn::Mul(y, root), inverse))), dh, g_.u[i] + c);
          hn::Store(hn::DemoteTo(dh, hn::NearestInt(hn::Mul(root, ratio))), dh, g_.root[i] + c);
        }
        hn::Store(hn::IfThenElseZero(hn::RebindMask(di, odd), hn::Set(di, 1)), di, g_.odd[e] + c);
      }
    }
  }

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
      for (int v = 0; v < 8 / kDim; ++v) {
        if (p_.signs == GridSigns::kEven)
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

  const GridProblem& p_;
  const GridIndex& ix_;
  const GridTuning& t_;
  GridWork& g_;
  int subs_, groups_;
  float rms_, largest_;
  float interpolation_[kGridSamples][kGridSamples] = {};
  int exponent_[4] = {};
};

template <int kDim, int kLevels>
void SearchGridAs(const GridProblem& p, const float* x, size_t blocks, const float* importance, size_t column,
                  size_t cols, GridWork& work, GridBlock* out) {
  GridSearcher<kDim, kLevels> searcher(p, work);
  const size_t step = size_t(searcher.BlocksPerTile());
  for (size_t b = 0; b < blocks; b += step) {
    const float* rows[4] = {};
    const size_t n = std::min(step, blocks - b);
    for (size_t i = 0; i < n && importance; ++i) rows[i] = importance + (column + (b + i) * kGridBlock) % cols;
    searcher.Run(x + b * kGridBlock, rows, int(n), out + b);
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
