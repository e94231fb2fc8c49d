// The best scale (and minimum) of each column of a tile: many starting points, one least-squares refit each. Codes are
// rounded for a trial scale; the sums of that pass give the scale that is best for those codes.
#if defined(EDGEQUANT_SEARCH_FIT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_FIT_INL_H_
#undef EDGEQUANT_SEARCH_FIT_INL_H_
#else
#define EDGEQUANT_SEARCH_FIT_INL_H_
#endif

#include "kernels/cpu/search_trial-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Per column: scale s, minimum m (x = s * code - m), and the sums over the group of weight times code^2 (ll), code (l),
// code * x (xl), x (x) and 1 (w) for the codes that gave s and m.
struct alignas(64) Fit {
  float s[kColumns], m[kColumns], ll[kColumns], l[kColumns], xl[kColumns], x[kColumns], w[kColumns];
};

struct ScaleSums { VF ll, xl; };
struct AffineSums { VF l, ll, xl; };

// ---- One pass over a tile's columns [c, c + lanes); kN trials share the loads.

template <const Block& kB, int S, int kN>
HWY_INLINE void Pass(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, const VF* inverse, ScaleSums* sums) {
  using Grid = GridOf<kB>;
  const DF d;
  VF ll0 = hn::Zero(d), xl0 = hn::Zero(d), ll1 = hn::Zero(d), xl1 = hn::Zero(d);
  const VF is0 = inverse[0], is1 = inverse[kN - 1];
  for (int i = 0; i < S; ++i) {
    const VF xv = hn::Load(d, x + i * kColumns), wv = hn::Load(d, w + i * kColumns);
    const VF q0 = Grid::Value(d, xv, is0), wq0 = hn::Mul(wv, q0);
    ll0 = hn::MulAdd(wq0, q0, ll0);
    xl0 = hn::MulAdd(wq0, xv, xl0);
    if constexpr (kN == 2) {
      const VF q1 = Grid::Value(d, xv, is1), wq1 = hn::Mul(wv, q1);
      ll1 = hn::MulAdd(wq1, q1, ll1);
      xl1 = hn::MulAdd(wq1, xv, xl1);
    }
  }
  sums[0] = {ll0, xl0};
  if constexpr (kN == 2) sums[1] = {ll1, xl1};
}
template <const Block& kB, int S, int kN>
HWY_INLINE void Pass(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, const VF* inverse, const VF* minimum,
                     AffineSums* sums) {
  const DF d;
  VF l0 = hn::Zero(d), ll0 = hn::Zero(d), xl0 = hn::Zero(d), l1 = hn::Zero(d), ll1 = hn::Zero(d), xl1 = hn::Zero(d);
  const VF is0 = inverse[0], is1 = inverse[kN - 1];
  const VF start0 = hn::Mul(minimum[0], is0), start1 = hn::Mul(minimum[kN - 1], is1);
  for (int i = 0; i < S; ++i) {
    const VF xv = hn::Load(d, x + i * kColumns), wv = hn::Load(d, w + i * kColumns);
    const VF q0 = AffineValue<kB>(d, xv, is0, start0), wq0 = hn::Mul(wv, q0);
    l0 = hn::Add(l0, wq0);
    ll0 = hn::MulAdd(wq0, q0, ll0);
    xl0 = hn::MulAdd(wq0, xv, xl0);
    if constexpr (kN == 2) {
      const VF q1 = AffineValue<kB>(d, xv, is1, start1), wq1 = hn::Mul(wv, q1);
      l1 = hn::Add(l1, wq1);
      ll1 = hn::MulAdd(wq1, q1, ll1);
      xl1 = hn::MulAdd(wq1, xv, xl1);
    }
  }
  sums[0] = {l0, ll0, xl0};
  if constexpr (kN == 2) sums[1] = {l1, ll1, xl1};
}

// Sums of the codes that the stored scales s (and minima m) imply, into f, and each column's weighted squared error
// less the constant sum of weight * x^2.
template <const Block& kB, int S>
HWY_INLINE void Evaluate(const Tile<S>& t, const float* s, const float* m, Fit& f, float* error) {
  const DF d;
  const VF two = hn::Set(d, 2.0f);
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF sv = hn::Load(d, s + c), inverse = Inverse(d, sv);
    VF e;
    if constexpr (ShapeOf(kB).affine) {
      AffineSums a;
      const VF mv = hn::Load(d, m + c), sx = hn::Load(d, f.x + c), sw = hn::Load(d, f.w + c);
      Pass<kB, S, 1>(&t.x[0][c], &t.w[0][c], &inverse, &mv, &a);
      e = hn::Mul(sv, hn::Sub(hn::Mul(sv, a.ll), hn::Mul(two, a.xl)));
      e = hn::Add(e, hn::Mul(mv, hn::Add(hn::Mul(mv, sw), hn::Mul(two, hn::NegMulAdd(sv, a.l, sx)))));
      hn::Store(a.l, d, f.l + c);
      hn::Store(a.ll, d, f.ll + c);
      hn::Store(a.xl, d, f.xl + c);
    } else {
      ScaleSums a;
      Pass<kB, S, 1>(&t.x[0][c], &t.w[0][c], &inverse, &a);
      e = hn::Mul(sv, hn::Sub(hn::Mul(sv, a.ll), hn::Mul(two, a.xl)));
      hn::Store(a.ll, d, f.ll + c);
      hn::Store(a.xl, d, f.xl + c);
    }
    hn::Store(e, d, error + c);
  }
}

// Each column's weighted squared error itself: where Evaluate's difference of large sums would be too coarse.
template <const Block& kB, int S>
HWY_NOINLINE void Residual(const Tile<S>& t, const float* s, const float* m, float* error) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF sv = hn::Load(d, s + c), mv = hn::Load(d, m + c), inverse = Inverse(d, sv), start = hn::Mul(mv, inverse);
    VF sum = hn::Zero(d);
    for (int i = 0; i < S; ++i) {
      const VF x = hn::Load(d, &t.x[i][c]);
      VF q;
      if constexpr (ShapeOf(kB).affine) q = AffineValue<kB>(d, x, inverse, start);
      else q = GridOf<kB>::Value(d, x, inverse);
      const VF r = hn::NegMulAdd(sv, q, hn::Add(x, mv));
      sum = hn::MulAdd(hn::Mul(r, r), hn::Load(d, &t.w[i][c]), sum);
    }
    hn::Store(sum, d, error + c);
  }
}

// ---- Scale only

template <const Block& kB, int S>
HWY_INLINE void FitScale(const Tile<S>& t, const Tuning& p, Fit& f) {
  using Grid = GridOf<kB>;
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const float *x = &t.x[0][c], *w = &t.w[0][c];
    VF extreme = hn::Zero(d), most = hn::Zero(d);  // the weight of largest magnitude
    for (int i = 0; i < S; ++i) {
      const VF v = hn::Load(d, x + i * kColumns), magnitude = hn::Abs(v);
      extreme = hn::IfThenElse(hn::Gt(magnitude, most), v, extreme);
      most = hn::Max(magnitude, most);
    }
    const VF inverse_extreme = Inverse(d, extreme);
    VF best_s = hn::Zero(d), best_gain = hn::Zero(d), best_ll = hn::Zero(d), best_xl = hn::Zero(d);
    const auto keep = [&](const ScaleSums& a) HWY_ATTR {
      const VF s = hn::Mul(a.xl, Inverse(d, a.ll)), gain = hn::Mul(s, a.xl);
      // the margin, above float noise, keeps the first start on ties: constant groups then share one scale
      const auto better = hn::Gt(gain, hn::Mul(best_gain, hn::Set(d, 1.0000005f)));
      best_gain = hn::IfThenElse(better, gain, best_gain);
      best_s = hn::IfThenElse(better, s, best_s);
      best_ll = hn::IfThenElse(better, a.ll, best_ll);
      best_xl = hn::IfThenElse(better, a.xl, best_xl);
    };
    const auto place = [&](int k) {  // of the extreme weight
      const float end = p.start[k][0] < 0 ? Grid::low : Grid::high;
      return end + (end < 0 ? -1 : 1) * p.start[k][1] * Grid::step;
    };
    if constexpr (TableOfBytes<kB>() && S <= 32) {
      TrialTile<S> trial;
      float places[kMaxStarts];
      for (int k = 0; k < p.starts; ++k) places[k] = place(k);
      FillTrial<kB, S>(x, w, inverse_extreme, trial);
      const VF inverse = hn::Mul(inverse_extreme, BestTrial<kB, S>(trial, places, p.starts));
      ScaleSums a;
      Pass<kB, S, 1>(x, w, &inverse, &a);
      keep(a);
    } else {
      for (int k = 0; k < p.starts; k += 2) {
        const VF inverse[2] = {hn::Mul(inverse_extreme, hn::Set(d, place(k))),
                               hn::Mul(inverse_extreme, hn::Set(d, place(k + 1)))};
        ScaleSums a[2];
        Pass<kB, S, 2>(x, w, inverse, a);
        keep(a[0]);
        keep(a[1]);
      }
    }
    for (int r = 0; r < p.refine; ++r) {
      const VF inverse = Inverse(d, best_s);
      ScaleSums a;
      Pass<kB, S, 1>(x, w, &inverse, &a);
      keep(a);
    }
    hn::Store(best_s, d, f.s + c);
    hn::Store(best_ll, d, f.ll + c);
    hn::Store(best_xl, d, f.xl + c);
  }
}

// ---- Scale and minimum

struct AffineFit { VF s, m, gain; };

// Least-squares scale and minimum from the sums (sx, sw: of weight * x and weight); gain: what they take off the
// weighted squared error. kAnyMinimum: the minimum may be negative.
template <bool kAnyMinimum>
HWY_INLINE AffineFit Solve(DF d, const AffineSums& a, VF sx, VF sw) {
  const VF zero = hn::Zero(d);
  const VF full = hn::Mul(a.ll, sw), det = hn::NegMulAdd(a.l, a.l, full);
  const auto flat = hn::Le(det, hn::Mul(hn::Set(d, 1e-6f), full));  // all codes equal
  const VF inverse = Inverse(d, hn::IfThenElse(flat, zero, det));
  const VF s_through_zero = hn::Mul(a.xl, Inverse(d, a.ll)), mean = hn::Mul(sx, Inverse(d, sw));
  VF s = hn::Mul(hn::Sub(hn::Mul(sw, a.xl), hn::Mul(a.l, sx)), inverse);
  VF m = hn::Mul(hn::Sub(hn::Mul(a.l, a.xl), hn::Mul(a.ll, sx)), inverse);
  if constexpr (kAnyMinimum) {
    m = hn::IfThenElse(flat, hn::Neg(mean), m);
    s = hn::IfThenElse(flat, zero, s);
  } else {
    const auto below = hn::Lt(m, zero);
    s = hn::IfThenElse(below, s_through_zero, s);
    m = hn::IfThenElse(below, zero, m);
    // one number describes the group: the minimum if it is negative, else the scale
    m = hn::IfThenElse(flat, hn::Max(zero, hn::Neg(mean)), m);
    s = hn::IfThenElse(flat, hn::IfThenElse(hn::Lt(mean, zero), zero, s_through_zero), s);
  }
  s = hn::Max(s, zero);
  return {s, m, hn::Sub(hn::Mul(s, a.xl), hn::Mul(m, sx))};
}

template <const Block& kB, int S, bool kAnyMinimum>
HWY_INLINE void FitAffine(const Tile<S>& t, const Tuning& p, Fit& f) {
  const DF d;
  const VF qmax = hn::Set(d, ShapeOf(kB).high), zero = hn::Zero(d);
  for (int c = 0; c < kColumns; c += LanesF()) {
    const float *x = &t.x[0][c], *w = &t.w[0][c];
    VF low = kAnyMinimum ? hn::Load(d, x) : zero, high = hn::Load(d, x), sx = zero, sw = zero;
    for (int i = 0; i < S; ++i) {
      const VF xv = hn::Load(d, x + i * kColumns), wv = hn::Load(d, w + i * kColumns);
      low = hn::Min(low, xv);
      high = hn::Max(high, xv);
      sx = hn::MulAdd(wv, xv, sx);
      sw = hn::Add(sw, wv);
    }
    const VF step = hn::Mul(hn::Sub(high, low), hn::Set(d, 1 / ShapeOf(kB).high));
    VF best_s = zero, best_m = hn::Neg(hn::Mul(sx, Inverse(d, sw))), best_l = zero, best_ll = zero, best_xl = zero;
    if constexpr (!kAnyMinimum) best_m = hn::Max(zero, best_m);
    VF best_gain = hn::Neg(hn::Mul(best_m, sx));
    const auto keep = [&](const AffineSums& a) HWY_ATTR {
      const AffineFit fit = Solve<kAnyMinimum>(d, a, sx, sw);
      const auto better = hn::Gt(fit.gain, best_gain);
      best_gain = hn::IfThenElse(better, fit.gain, best_gain);
      best_s = hn::IfThenElse(better, fit.s, best_s);
      best_m = hn::IfThenElse(better, fit.m, best_m);
      best_l = hn::IfThenElse(better, a.l, best_l);
      best_ll = hn::IfThenElse(better, a.ll, best_ll);
      best_xl = hn::IfThenElse(better, a.xl, best_xl);
    };
    for (int k = 0; k < p.starts; k += 2) {
      VF m[2], inverse[2];
      for (int j = 0; j < 2; ++j) {
        m[j] = hn::NegMulAdd(hn::Set(d, p.start[k + j][0]), step, hn::Neg(low));
        if constexpr (!kAnyMinimum) m[j] = hn::Max(zero, m[j]);
        inverse[j] = hn::Mul(qmax, Inverse(d, hn::Add(hn::NegMulAdd(hn::Set(d, p.start[k + j][1]), step, high), m[j])));
      }
      AffineSums a[2];
      Pass<kB, S, 2>(x, w, inverse, m, a);
      keep(a[0]);
      keep(a[1]);
    }
    for (int r = 0; r < p.refine; ++r) {
      const VF inverse = Inverse(d, best_s);
      AffineSums a;
      Pass<kB, S, 1>(x, w, &inverse, &best_m, &a);
      keep(a);
    }
    hn::Store(best_s, d, f.s + c);
    hn::Store(best_m, d, f.m + c);
    hn::Store(best_l, d, f.l + c);
    hn::Store(best_ll, d, f.ll + c);
    hn::Store(best_xl, d, f.xl + c);
    hn::Store(sx, d, f.x + c);
    hn::Store(sw, d, f.w + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_FIT_INL_H_
