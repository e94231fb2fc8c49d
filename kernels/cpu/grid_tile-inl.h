// A tile of a grid search: its weights, scaled and side by side, and their 16-bit copies.
#if defined(EDGEQUANT_GRID_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_TILE_INL_H_
#undef EDGEQUANT_GRID_TILE_INL_H_
#else
#define EDGEQUANT_GRID_TILE_INL_H_
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

class GridTile {
 public:
  GridTile(const GridProblem& p, GridWork& g)
      : p_(p), ix_(*p.index), t_(p.tuning), g_(g), subs_(kGridBlock / p.sub), groups_(p.sub / 8),
        rms_(std::sqrt(ix_.mean_square + p.delta * p.delta)),
        largest_(std::max(std::abs(ix_.value[0]), std::abs(ix_.value[ix_.levels - 1])) + p.delta) {
    for (int sign = 0; sign < 2; ++sign)
      for (int l = 0; l < ix_.levels; ++l)
        std::fill_n(g.value[sign][l], kGridLanes,
                    int16_t(std::lrint((ix_.value[l] + (sign ? -p.delta : p.delta)) / largest_ * 32767)));
  }

  int BlocksPerTile() const { return kGridLanes / subs_; }

 protected:
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

  const GridProblem& p_;
  const GridIndex& ix_;
  const GridTuning& t_;
  GridWork& g_;
  const int subs_, groups_;  // sub-blocks of a block, groups of 8 weights of a sub-block
  const float rms_, largest_;
  int exponent_[4] = {};
};

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif
