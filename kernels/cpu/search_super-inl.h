// Scales in two levels: one number per block times an integer per group. The number is searched so that the rounded
// products stay close to what each group wants; then codes, integers and numbers are refitted in turns.
#if defined(EDGEQUANT_SEARCH_SUPER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_SUPER_INL_H_
#undef EDGEQUANT_SEARCH_SUPER_INL_H_
#else
#define EDGEQUANT_SEARCH_SUPER_INL_H_
#endif

#include "format/encode.h"
#include "kernels/cpu/search_fit-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// What a tile's blocks store, per column: the numbers (equal within a block) and the integers.
struct alignas(64) Super {
  float d[kColumns] = {}, d_min[kColumns] = {}, scale[kColumns] = {}, minimum[kColumns] = {};
};

// The nearest stored number; never infinite.
HWY_INLINE float RoundToF16(float v) { return F16ToF32(F16FromF32(HWY_MIN(HWY_MAX(v, -65504.0f), 65504.0f))); }

// The block's number d for the wishes v of its groups: of the candidates that put the extreme wish at a given integer,
// the one with the least sum of h_j * (v_j - d * integer_j)^2. One candidate per lane.
template <int kGroups>
HWY_INLINE float BestNumber(const float* v, const float* h, int low, int high, const Tuning& p) {
  float most = 0, least = 0;
  for (int j = 0; j < kGroups; ++j) {
    most = HWY_MAX(most, v[j]);
    least = HWY_MIN(least, v[j]);
  }
  const float extreme = -least > most ? least : most;
  if (!(HWY_MAX(extreme, -extreme) > 1e-30f)) return 0;
  const DF d;
  const VF per_integer = hn::Set(d, 1 / extreme), bottom = hn::Set(d, float(low)), top = hn::Set(d, float(high));
  VF error = hn::Set(d, 3e38f), number = hn::Zero(d);
  for (int k = 0; k < p.candidates; k += LanesF()) {
    const VF inverse = hn::Mul(hn::LoadU(d, p.candidate + k), per_integer), step = hn::Div(hn::Set(d, 1.0f), inverse);
    VF e = hn::Zero(d);
    for (int j = 0; j < kGroups; ++j) {
      const VF vj = hn::Set(d, v[j]);
      const VF q = hn::Min(hn::Max(hn::Round(hn::Mul(vj, inverse)), bottom), top);
      const VF r = hn::NegMulAdd(q, step, vj);
      e = hn::MulAdd(hn::Mul(r, r), hn::Set(d, h[j]), e);
    }
    const auto less = hn::Lt(e, error);
    error = hn::IfThenElse(less, e, error);
    number = hn::IfThenElse(less, step, number);
  }
  const auto best = hn::Eq(error, hn::MinOfLanes(d, error));
  return RoundToF16(hn::GetLane(hn::MaxOfLanes(d, hn::IfThenElse(best, number, hn::Set(d, -3e38f)))));
}

template <int kGroups, class F>
HWY_INLINE void PerBlock(float* out, const F& number) {
  for (int b = 0; b < kColumns; b += kGroups) {
    const float v = number(b);
    for (int j = 0; j < kGroups; ++j) out[b + j] = v;
  }
}
HWY_INLINE VF RoundClamp(DF d, VF v, int low, int high) {
  return hn::Min(hn::Max(hn::Round(v), hn::Set(d, float(low))), hn::Set(d, float(high)));
}

// ---- Integers from the fit; with `choose`, the blocks' numbers first.

template <const Block& kB>
HWY_INLINE void RoundScales(const Fit& f, bool choose, const Tuning& p, Super& z) {
  static constexpr Shape s = ShapeOf(kB);
  static_assert(!s.affine || s.min_high == s.scale_high, "both share the candidates");
  const DF d;
  if constexpr (!s.affine) {
    if (choose)
      PerBlock<s.groups>(z.d, [&](int b) HWY_ATTR {
        return BestNumber<s.groups>(f.s + b, f.ll + b, s.scale_low, s.scale_high, p);
      });
    for (int c = 0; c < kColumns; c += LanesF()) {
      const VF q = hn::Mul(hn::Load(d, f.s + c), Inverse(d, hn::Load(d, z.d + c)));
      hn::Store(RoundClamp(d, q, s.scale_low, s.scale_high), d, z.scale + c);
    }
  } else {
    alignas(64) float h[kColumns], v[kColumns];
    if (choose) {
      for (int c = 0; c < kColumns; c += LanesF()) {  // what a unit of scale costs when the minimum follows
        const VF l = hn::Load(d, f.l + c), inverse_w = Inverse(d, hn::Load(d, f.w + c));
        hn::Store(hn::Max(hn::Zero(d), hn::NegMulAdd(hn::Mul(l, l), inverse_w, hn::Load(d, f.ll + c))), d, h + c);
      }
      PerBlock<s.groups>(z.d, [&](int b) HWY_ATTR { return BestNumber<s.groups>(f.s + b, h + b, 0, s.scale_high, p); });
    }
    for (int c = 0; c < kColumns; c += LanesF()) {
      const VF number = hn::Load(d, z.d + c), fs = hn::Load(d, f.s + c), fm = hn::Load(d, f.m + c);
      const VF q = RoundClamp(d, hn::Mul(fs, Inverse(d, number)), 0, s.scale_high);
      // the minimum that is best for the rounded scale and the present codes
      const VF excess = hn::MulSub(hn::Mul(number, q), hn::Load(d, f.l + c), hn::Load(d, f.x + c));
      const VF want = hn::Mul(excess, Inverse(d, hn::Load(d, f.w + c)));
      hn::Store(hn::IfThenElse(hn::Gt(fs, hn::Zero(d)), hn::Max(want, hn::Zero(d)), fm), d, v + c);
      hn::Store(q, d, z.scale + c);
    }
    if (choose)
      PerBlock<s.groups>(z.d_min, [&](int b) HWY_ATTR {
        return BestNumber<s.groups>(v + b, f.w + b, 0, s.min_high, p);
      });
    for (int c = 0; c < kColumns; c += LanesF()) {
      const VF q = hn::Mul(hn::Load(d, v + c), Inverse(d, hn::Load(d, z.d_min + c)));
      hn::Store(RoundClamp(d, q, 0, s.min_high), d, z.minimum + c);
    }
  }
}

// The decoded scale and minimum of each column.
HWY_INLINE void Decoded(const Super& z, float* s, float* m) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    hn::Store(hn::Mul(hn::Load(d, z.d + c), hn::Load(d, z.scale + c)), d, s + c);
    hn::Store(hn::Mul(hn::Load(d, z.d_min + c), hn::Load(d, z.minimum + c)), d, m + c);
  }
}

// ---- Least-squares numbers for the present codes and integers. error: per block, what the squared error then is with
// these codes, less the constant sum of weight * x^2.

template <const Block& kB>
HWY_INLINE void RefitNumbers(const Fit& f, Super& z, double* error) {
  constexpr int groups = ShapeOf(kB).groups;
  const DF d;
  alignas(64) float ss[kColumns], sm[kColumns], mm[kColumns], sx[kColumns], mx[kColumns];
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF s = hn::Load(d, z.scale + c);
    hn::Store(hn::Mul(hn::Mul(s, s), hn::Load(d, f.ll + c)), d, ss + c);
    hn::Store(hn::Mul(s, hn::Load(d, f.xl + c)), d, sx + c);
    if constexpr (ShapeOf(kB).affine) {
      const VF m = hn::Load(d, z.minimum + c);
      hn::Store(hn::Mul(hn::Mul(s, m), hn::Load(d, f.l + c)), d, sm + c);
      hn::Store(hn::Mul(hn::Mul(m, m), hn::Load(d, f.w + c)), d, mm + c);
      hn::Store(hn::Mul(m, hn::Load(d, f.x + c)), d, mx + c);
    }
  }
  for (int b = 0; b < kColumns; b += groups) {
    const double a = SumOfBlock<groups>(ss + b), p = SumOfBlock<groups>(sx + b);
    double h = 0, e = 0, q = 0;
    if constexpr (ShapeOf(kB).affine) {
      h = SumOfBlock<groups>(sm + b);
      e = SumOfBlock<groups>(mm + b);
      q = SumOfBlock<groups>(mx + b);
    }
    const auto squares = [&](double number, double number_min) {
      return number * (number * a - 2 * p) + number_min * (number_min * e + 2 * (q - number * h));
    };
    float number = z.d[b], number_min = z.d_min[b], new_d = number, new_min = number_min;
    if constexpr (ShapeOf(kB).affine) {
      const double det = h * h - a * e;
      if (e > 0 && det < -1e-6 * a * e) {
        new_d = RoundToF16(float((h * q - e * p) / det));
        new_min = RoundToF16(float((a * q - h * p) / det));
        if (!(new_d > 0 && new_min > 0)) new_d = number, new_min = number_min;
      } else if (e == 0 && a > 0 && p > 0) {
        new_d = RoundToF16(float(p / a));
      }
    } else if (a > 0) {
      new_d = RoundToF16(float(p / a));
    }
    error[b / groups] = squares(new_d, new_min);
    for (int j = 0; j < groups; ++j) z.d[b + j] = new_d, z.d_min[b + j] = new_min;
  }
}

// New wishes of each group for the present codes, into f.
template <const Block& kB>
HWY_INLINE void RefitGroups(const float* s, const float* m, Fit& f) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF ll = hn::Load(d, f.ll + c), xl = hn::Load(d, f.xl + c);
    if constexpr (ShapeOf(kB).affine) {
      const VF l = hn::Load(d, f.l + c), sx = hn::Load(d, f.x + c), sw = hn::Load(d, f.w + c);
      const VF full = hn::Mul(ll, sw);
      const auto sound = hn::Gt(hn::NegMulAdd(l, l, full), hn::Mul(hn::Set(d, 1e-6f), full));
      const AffineFit fit = Solve<false>(d, {l, ll, xl}, sx, sw);
      hn::Store(hn::IfThenElse(sound, fit.s, hn::Load(d, s + c)), d, f.s + c);
      hn::Store(hn::IfThenElse(sound, fit.m, hn::Load(d, m + c)), d, f.m + c);
    } else {
      hn::Store(hn::IfThenElse(hn::Gt(ll, hn::Zero(d)), hn::Mul(xl, Inverse(d, ll)), hn::Load(d, s + c)), d, f.s + c);
    }
  }
}

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

// Copies the blocks of y to z for which better(first column) holds.
template <int kGroups, class F>
HWY_INLINE void TakeBlocks(const Super& y, const F& better, Super& z) {
  for (int b = 0; b < kColumns; b += kGroups) {
    if (!better(b)) continue;
    for (int j = b; j < b + kGroups; ++j) {
      z.d[j] = y.d[j];
      z.d_min[j] = y.d_min[j];
      z.scale[j] = y.scale[j];
      z.minimum[j] = y.minimum[j];
    }
  }
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
          for (int c = 0; c < kColumns; c += LanesF()) {  // the middle of the range stays, or moves by a share of a step
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

// The whole search of a tile's blocks; error, if not null, receives each column's error. Of all rounds the best is kept.
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

#endif  // EDGEQUANT_SEARCH_SUPER_INL_H_
