// The search of blocks with scales in two levels: starts, alternations, and for best a polish of numbers and integers.
#if defined(EDGEQUANT_SEARCH_TWO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_TWO_INL_H_
#undef EDGEQUANT_SEARCH_TWO_INL_H_
#else
#define EDGEQUANT_SEARCH_TWO_INL_H_
#endif

#include "kernels/cpu/search_super-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Tries each integer scale one down and one up, codes rounded anew, each with its best minimum.
template <const Block& kB, int S>
HWY_NOINLINE void TryNeighbours(const Tile<S>& t, const Fit& f, Super& z) {
  static constexpr Shape shape = ShapeOf(kB);
  const DF d;
  alignas(64) float s[kColumns], m[kColumns], error[kColumns], least[kColumns] = {};
  Super best = z;
  for (int k = 0; k < 3; ++k) {
    Super y = z;
    if (k > 0)
      for (int c = 0; c < kColumns; c += LanesF()) {
        const VF moved = hn::Add(hn::Load(d, z.scale + c), hn::Set(d, k == 1 ? -1.0f : 1.0f));
        const VF scale = RoundClamp(d, moved, shape.scale_low, shape.scale_high);
        hn::Store(scale, d, y.scale + c);
        if constexpr (shape.affine) {
          const VF sv = hn::Mul(hn::Load(d, z.d + c), scale);
          const VF excess = hn::MulSub(sv, hn::Load(d, f.l + c), hn::Load(d, f.x + c));
          const VF want = hn::Mul(excess, Inverse(d, hn::Load(d, f.w + c)));
          const VF minimum = hn::Mul(want, Inverse(d, hn::Load(d, z.d_min + c)));
          hn::Store(RoundClamp(d, minimum, 0, shape.min_high), d, y.minimum + c);
        }
      }
    Decoded(y, s, m);
    Fit g = f;
    Evaluate<kB, S>(t, s, m, g, error);
    for (int j = 0; j < kColumns; ++j)
      if (k == 0 || error[j] < least[j]) {
        least[j] = error[j];
        best.scale[j] = y.scale[j];
        best.minimum[j] = y.minimum[j];
      }
  }
  z = best;
}

// The sums of weight * x and weight.
template <int S>
HWY_INLINE void SumTile(const Tile<S>& t, Fit& f) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF sx = hn::Zero(d), sw = hn::Zero(d);
    for (int i = 0; i < S; ++i) {
      const VF w = hn::Load(d, &t.w[i][c]);
      sx = hn::MulAdd(w, hn::Load(d, &t.x[i][c]), sx);
      sw = hn::Add(sw, w);
    }
    hn::Store(sx, d, f.x + c);
    hn::Store(sw, d, f.w + c);
  }
}

// Moves the blocks' numbers by up to `span` of their size, each in turn. For every step the integers are chosen anew:
// among those around what the groups wish, or (pairs) all of up to three more or less; codes are rounded anew for each.
// Numbers with a minimum must be positive.
template <const Block& kB, int S>
HWY_NOINLINE void Polish(const Tile<S>& t, int steps, float span, bool pairs, Super& z) {
  static constexpr Shape shape = ShapeOf(kB);
  const DF d;
  alignas(64) float s[kColumns], m[kColumns], error[kColumns], least[kColumns] = {}, best[kColumns];
  Fit f;
  if constexpr (shape.affine) SumTile<S>(t, f);
  Decoded(z, s, m);
  Residual<kB, S>(t, s, m, best);
  if (pairs) {
    Decoded(z, f.s, f.m);
  } else {
    Evaluate<kB, S>(t, s, m, f, error);
    RefitGroups<kB>(s, m, f);
  }
  for (int which = 0; which < (shape.affine ? 2 : 1); ++which) {
    const Super center = z;
    for (int k = -steps; k <= steps; ++k) {
      Super y = center, trial = center;
      PerBlock<shape.groups>(which ? y.d_min : y.d, [&](int b) {
        return RoundToF16((which ? center.d_min : center.d)[b] * (1 + span * float(k) / float(steps)));
      });
      memcpy(trial.d, y.d, sizeof y.d);
      memcpy(trial.d_min, y.d_min, sizeof y.d_min);
      const int around = pairs ? 3 : 1, width = 2 * around + 1;
      for (int by = 0; by < (shape.affine ? width * width : width); ++by) {
        const float more = float(by % width - around), shift = float(by / width - around);
        for (int c = 0; c < kColumns; c += LanesF()) {
          const VF wish = hn::Mul(hn::Load(d, f.s + c), Inverse(d, hn::Load(d, y.d + c)));
          const VF q = pairs ? hn::Load(d, center.scale + c) : hn::Round(wish);
          hn::Store(RoundClamp(d, hn::Add(q, hn::Set(d, more)), shape.scale_low, shape.scale_high), d, trial.scale + c);
        }
        if constexpr (shape.affine) {
          Decoded(trial, s, m);
          Fit g;
          for (int c = 0; c < kColumns;
               c += LanesF()) {  // the middle of the range stays, or moves by a share of a step
            const VF sv = hn::Load(d, s + c), grown = hn::Sub(sv, hn::Load(d, f.s + c));
            const VF moved = hn::MulAdd(grown, hn::Set(d, shape.high / 2), hn::Load(d, f.m + c));
            hn::Store(hn::MulAdd(sv, hn::Set(d, pairs ? 0 : shift / 3), moved), d, m + c);
            hn::Store(hn::Load(d, f.x + c), d, g.x + c);
            hn::Store(hn::Load(d, f.w + c), d, g.w + c);
          }
          if (!pairs) Evaluate<kB, S>(t, s, m, g, error);
          for (int c = 0; c < kColumns; c += LanesF()) {
            VF want = hn::Load(d, m + c);
            if (!pairs) {  // what is best for these codes
              const VF excess = hn::MulSub(hn::Load(d, s + c), hn::Load(d, g.l + c), hn::Load(d, f.x + c));
              want = hn::Mul(excess, Inverse(d, hn::Load(d, f.w + c)));
            }
            VF integer = hn::Round(hn::Mul(want, Inverse(d, hn::Load(d, y.d_min + c))));
            if (pairs) integer = hn::Add(integer, hn::Set(d, shift));
            hn::Store(RoundClamp(d, integer, 0, shape.min_high), d, trial.minimum + c);
          }
        }
        Decoded(trial, s, m);
        Residual<kB, S>(t, s, m, error);
        for (int j = 0; j < kColumns; ++j)
          if (by == 0 || error[j] < least[j]) {
            least[j] = error[j];
            y.scale[j] = trial.scale[j];
            y.minimum[j] = trial.minimum[j];
          }
      }
      TakeBlocks<shape.groups>(y, [&](int b) {
        if (!(SumOfBlock<shape.groups>(least + b) < SumOfBlock<shape.groups>(best + b))) return false;
        for (int j = b; j < b + shape.groups; ++j) best[j] = least[j];
        return true;
      }, z);
    }
  }
}

// The whole search of a tile's blocks; error, if not null, receives each column's error. Of all rounds the best is
// kept.
template <const Block& kB, int S>
HWY_NOINLINE void SearchTwoLevels(const Tile<S>& t, const Tuning& p, Super& z, float* error) {
  constexpr int groups = ShapeOf(kB).groups;
  Fit f;
  if constexpr (ShapeOf(kB).affine) FitAffine<kB, S, false>(t, p, f);
  else FitScale<kB, S>(t, p, f);
  Super y;
  RoundScales<kB>(f, true, p, y);
  alignas(64) float s[kColumns], m[kColumns], e[kColumns];
  double now[kColumns / groups], least[kColumns / groups] = {};
  for (int r = 0; r < p.rounds; ++r) {
    if (p.neighbours && r > 0) TryNeighbours<kB, S>(t, f, y);
    Decoded(y, s, m);
    Evaluate<kB, S>(t, s, m, f, e);
    RefitNumbers<kB>(f, y, now);
    TakeBlocks<groups>(y, [&](int b) {
      if (r > 0 && !(now[b / groups] < least[b / groups])) return false;
      least[b / groups] = now[b / groups];
      return true;
    }, z);
    if (r + 1 < p.rounds) {
      RefitGroups<kB>(s, m, f);
      RoundScales<kB>(f, false, p, y);
    }
  }
  if (!error) return;
  Decoded(z, s, m);
  Residual<kB, S>(t, s, m, error);
}

// The search with all that the tuning asks for. With a minimum, a block may also be stored with both numbers negative:
// then the greatest weight is the offset.
template <const Block& kB, int S>
HWY_INLINE void SearchSuper(Tile<S>& t, const Tuning& p, Super& z) {
  constexpr int groups = ShapeOf(kB).groups;
  const bool mirror = ShapeOf(kB).affine && p.mirror;
  if (!mirror && !p.polish) return SearchTwoLevels<kB, S>(t, p, z, nullptr);
  const DF d;
  alignas(64) float e0[kColumns], e1[kColumns], sign[kColumns];
  const auto turn = [&]() HWY_ATTR {
    for (int c = 0; c < kColumns; c += LanesF())
      for (int i = 0; i < S; ++i) hn::Store(hn::Mul(hn::Load(d, &t.x[i][c]), hn::Load(d, sign + c)), d, &t.x[i][c]);
  };
  SearchTwoLevels<kB, S>(t, p, z, e0);
  for (float& v : sign) v = -1;
  if (mirror) {
    turn();
    Super y;
    SearchTwoLevels<kB, S>(t, p, y, e1);
    turn();
    const auto better = [&](int b) { return SumOfBlock<groups>(e1 + b) < SumOfBlock<groups>(e0 + b); };
    for (int j = 0; j < kColumns; ++j) sign[j] = better(j / groups * groups) ? -1.0f : 1.0f;
    TakeBlocks<groups>(y, better, z);
  }
  if (p.polish) {
    if (mirror) turn();
    Polish<kB, S>(t, p.polish, 0.06f, false, z);
    Polish<kB, S>(t, HWY_MAX(p.polish / 3, 2), 0.006f, true, z);
    if (mirror) turn();
  }
  if (mirror)
    for (int j = 0; j < kColumns; ++j) z.d[j] *= sign[j], z.d_min[j] *= sign[j];
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_TWO_INL_H_
