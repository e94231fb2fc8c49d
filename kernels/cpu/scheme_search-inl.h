// The search for scale and shift of 16 groups side by side, or of one large group spread over all 16 columns.
#if defined(EDGEQUANT_SCHEME_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_SEARCH_INL_H_
#undef EDGEQUANT_SCHEME_SEARCH_INL_H_
#else
#define EDGEQUANT_SCHEME_SEARCH_INL_H_
#endif

#include "kernels/cpu/scheme_rule-inl.h"
#include "kernels/cpu/scheme_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// x and w are n x 16 numbers; one: all of them are one group. Weights of what is not there are 0, its x repeats
// another. w is null where all weights are 1: there is less to be done then.
struct GroupTile {
  size_t n = 0;
  bool one = false;
  const float *x = nullptr, *w = nullptr;
};

// A number per column. Sums over one large group are made the same in all columns, added in a fixed order.
struct alignas(64) Numbers {
  float v[kColumns];
  float& operator[](int j) { return v[j]; }
  float operator[](int j) const { return v[j]; }
  HWY_INLINE VF at(int c) const { return hn::Load(DF(), v + c); }
  HWY_INLINE void set(int c, VF value) { hn::Store(value, DF(), v + c); }
};
HWY_INLINE void Merge(bool one, Numbers& a) {
  if (!one) return;
  const float sum = SumOfBlock<kColumns>(a.v);
  for (int j = 0; j < kColumns; ++j) a[j] = sum;
}

// weight * value^2, weight * value, weight * value * x.
struct Sums { Numbers ll, l, xl; };
// A trial: u = x * inverse + start is rounded to a value; scale-only values count from `zero`.
struct Trial { Numbers inverse, start, zero; };

// One pass for two trials.
template <bool kShift, bool kWeights, class V>
HWY_INLINE void Pass(const V& values, const GroupTile& t, const Trial* trial, Sums* sums) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF ll0 = hn::Zero(d), l0 = ll0, xl0 = ll0, ll1 = ll0, l1 = ll0, xl1 = ll0;
    const VF is0 = trial[0].inverse.at(c), is1 = trial[1].inverse.at(c);
    const VF b0 = trial[0].start.at(c), b1 = trial[1].start.at(c), z0 = trial[0].zero.at(c), z1 = trial[1].zero.at(c);
    for (size_t i = 0; i < t.n; ++i) {
      const VF xv = hn::Load(d, t.x + i * kColumns + c);
      VF q0 = values.Value(d, hn::MulAdd(xv, is0, b0)), q1 = values.Value(d, hn::MulAdd(xv, is1, b1));
      if constexpr (!kShift && V::kWhole) q0 = hn::Sub(q0, z0), q1 = hn::Sub(q1, z1);
      VF wq0 = q0, wq1 = q1;
      if constexpr (kWeights) {
        const VF wv = hn::Load(d, t.w + i * kColumns + c);
        wq0 = hn::Mul(wv, q0), wq1 = hn::Mul(wv, q1);
      }
      ll0 = hn::MulAdd(wq0, q0, ll0);
      ll1 = hn::MulAdd(wq1, q1, ll1);
      xl0 = hn::MulAdd(wq0, xv, xl0);
      xl1 = hn::MulAdd(wq1, xv, xl1);
      if constexpr (kShift) l0 = hn::Add(l0, wq0), l1 = hn::Add(l1, wq1);
    }
    sums[0].ll.set(c, ll0), sums[0].l.set(c, l0), sums[0].xl.set(c, xl0);
    sums[1].ll.set(c, ll1), sums[1].l.set(c, l1), sums[1].xl.set(c, xl1);
  }
  for (int k = 0; k < 2; ++k) Merge(t.one, sums[k].ll), Merge(t.one, sums[k].l), Merge(t.one, sums[k].xl);
}

// The sums for a scale (and minimum) as stored, and the weighted squared error itself: near the optimum its difference
// from a sum of squares would be noise.
template <bool kShift, bool kWeights, class V>
HWY_INLINE void Evaluate(const V& values, const GroupTile& t, const Trial& trial, const Numbers& scale,
                         const Numbers& minimum, Sums& sums, Numbers& error) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF ll = hn::Zero(d), l = ll, xl = ll, e = ll;
    const VF is = trial.inverse.at(c), b = trial.start.at(c), z = trial.zero.at(c), s = scale.at(c), m = minimum.at(c);
    for (size_t i = 0; i < t.n; ++i) {
      const VF xv = hn::Load(d, t.x + i * kColumns + c);
      VF q = values.Value(d, hn::MulAdd(xv, is, b));
      if constexpr (!kShift && V::kWhole) q = hn::Sub(q, z);
      const VF gap = hn::NegMulAdd(q, s, kShift ? hn::Sub(xv, m) : xv);
      VF wq = q, wgap = gap;
      if constexpr (kWeights) {
        const VF wv = hn::Load(d, t.w + i * kColumns + c);
        wq = hn::Mul(wv, q), wgap = hn::Mul(wv, gap);
      }
      ll = hn::MulAdd(wq, q, ll);
      xl = hn::MulAdd(wq, xv, xl);
      if constexpr (kShift) l = hn::Add(l, wq);
      e = hn::MulAdd(wgap, gap, e);
    }
    sums.ll.set(c, ll), sums.l.set(c, l), sums.xl.set(c, xl), error.set(c, e);
  }
  Merge(t.one, sums.ll), Merge(t.one, sums.l), Merge(t.one, sums.xl), Merge(t.one, error);
}

// What the weights of a group are like.
struct Outline { Numbers low, high, extreme, magnitudes, count, sx, sw; };

HWY_INLINE void Describe(const GroupTile& t, Outline& o) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const float* HWY_RESTRICT x = t.x + c;
    VF low = hn::Load(d, x), high = low, extreme = hn::Zero(d), most = hn::Zero(d);
    VF magnitudes = hn::Zero(d), sx = hn::Zero(d), sw = hn::Zero(d);
    for (size_t i = 0; i < t.n; ++i, x += kColumns) {
      const VF xv = hn::Load(d, x), wv = t.w ? hn::Load(d, t.w + i * kColumns + c) : hn::Set(d, 1.0f),
               magnitude = hn::Abs(xv);
      low = hn::Min(low, xv);
      high = hn::Max(high, xv);
      extreme = hn::IfThenElse(hn::Gt(magnitude, most), xv, extreme);
      most = hn::Max(most, magnitude);
      magnitudes = hn::Add(magnitudes, magnitude);
      sx = hn::MulAdd(wv, xv, sx);
      sw = hn::Add(sw, wv);
    }
    o.low.set(c, low), o.high.set(c, high), o.extreme.set(c, extreme), o.magnitudes.set(c, magnitudes);
    o.sx.set(c, sx), o.sw.set(c, sw);
  }
  for (int j = 0; j < kColumns; ++j) o.count[j] = float(t.n);
  if (!t.one) return;
  Merge(true, o.magnitudes), Merge(true, o.sx), Merge(true, o.sw), Merge(true, o.count);
  float low = o.low[0], high = o.high[0], extreme = o.extreme[0];
  for (int j = 1; j < kColumns; ++j) {
    low = HWY_MIN(low, o.low[j]);
    high = HWY_MAX(high, o.high[j]);
    if (fabsf(o.extreme[j]) > fabsf(extreme)) extreme = o.extreme[j];
  }
  for (int j = 0; j < kColumns; ++j) o.low[j] = low, o.high[j] = high, o.extreme[j] = extreme;
}

HWY_INLINE float SafeInverse(float v) { return fabsf(v) > 1e-37f ? 1 / v : 0; }

template <class V>
class Searcher {
 public:
  Searcher(const SchemeSearch& s, const V& v, const GroupTile& tile)
      : s_(s), v_(v), t_(tile), f_(*s.scheme), minimum_(f_.zeros == Zero::kMinimum || f_.zeros == Zero::kFloat) {
    Describe(t_, o_);
  }

  // The sums of the best codes for these.
  void SumsOf(const Numbers& scale, const Numbers& shift, GroupSums* out) const {
    Sums a;
    Numbers error;
    Judge(scale, shift, a, error);
    for (int j = 0; j < kColumns; ++j) out[j] = {o_.sw[j], o_.sx[j], a.l[j], a.ll[j], a.xl[j]};
  }

  void Run(float* scale, float* shift) {
    Numbers best_s, best_shift, least;
    const bool use_rule = f_.rule != Rule::kNone;
    Ranges range;
    RuleColumns rule;
    for (int j = 0; j < kColumns; ++j) {
      range.low[j] = o_.low[j], range.high[j] = o_.high[j], range.extreme[j] = o_.extreme[j];
      range.mean_magnitude[j] = o_.magnitudes[j] / o_.count[j];
    }
    RuleOfColumns(s_, range, rule);
    for (int j = 0; j < kColumns; ++j) {
      least[j] = INFINITY;
      const bool searched = !use_rule && fabsf(o_.extreme[j]) < 1e18f;  // squares of larger ones overflow: no search
      best_s[j] = searched ? 0 : rule.scale[j];
      best_shift[j] = searched ? 0 : rule.shift[j];
    }
    Sums sums;
    if (use_rule) Judge(best_s, best_shift, sums, least);
    if (CellBits(s_.scale_cell) == 8 && f_.zeros == Zero::kNone) AllSteps(best_s, best_shift, least);
    else
      for (const SchemeTuning* p = s_.tuning; p; p = p->lower) Fit(*p, best_s, best_shift, least);
    for (int j = 0; j < kColumns; ++j) scale[j] = best_s[j], shift[j] = best_shift[j];
  }

 private:
  // Starts, then codes and stored scale in turns.
  void Fit(const SchemeTuning& p, Numbers& best_s, Numbers& best_shift, Numbers& least) const {
    Numbers fit_s, fit_shift, s, shift;
    Sums sums;
    if (minimum_) Starts<true>(p, fit_s, fit_shift);
    else Starts<false>(p, fit_s, fit_shift);
    for (int r = 0; r <= p.rounds; ++r) {
      Store(fit_s, fit_shift, s, shift);
      Keep(s, shift, best_s, best_shift, least, sums);
      Refit(sums, fit_s, fit_shift, shift);
    }
  }

  // 8-bit scales are few: the plain choice, which puts the greatest magnitude on the highest value, and its neighbours.
  void AllSteps(Numbers& best_s, Numbers& best_shift, Numbers& least) const {
    const float high = HWY_MAX(s_.values->high, -s_.values->low);
    const int ends = f_.negative_scale && s_.values->high != -s_.values->low && s_.scale_cell == Cell::kE4M3 ? 2 : 1;
    Numbers plain, s, shift;
    Sums unused;
    for (int j = 0; j < kColumns; ++j) shift[j] = 0;
    for (int side = 0; side < ends; ++side) {
      for (int j = 0; j < kColumns; ++j)
        plain[j] = AsStored(s_.scale_cell, (side ? -1 : 1) * fabsf(o_.extreme[j]) / high);
      for (int k = -s_.tuning->scale_steps; k <= s_.tuning->scale_steps; ++k) {
        for (int j = 0; j < kColumns; ++j) s[j] = StepCell(s_.scale_cell, plain[j], k);
        Keep(s, shift, best_s, best_shift, least, unused);
      }
    }
  }

  HWY_INLINE float ZeroOf(float shift) const { return f_.zeros == Zero::kInteger ? shift : f_.zero; }

  void Judge(const Numbers& s, const Numbers& shift, Sums& sums, Numbers& error) const {
    const DF d;
    Trial t;
    Numbers m;
    for (int c = 0; c < kColumns; c += LanesF()) {
      const VF scale = s.at(c), at = shift.at(c), inverse = Invert(d, scale), fixed = hn::Set(d, f_.zero);
      const VF zero = f_.zeros == Zero::kInteger ? at : fixed;
      VF minimum = hn::Zero(d), start = V::kWhole ? zero : hn::Zero(d);
      if (minimum_) {  // that belongs to code 0
        minimum = f_.zeros == Zero::kFloat ? hn::Neg(hn::Mul(at, scale)) : hn::NegMulAdd(fixed, scale, at);
        start = hn::Neg(hn::Mul(minimum, inverse));
      }
      t.inverse.set(c, inverse), t.zero.set(c, zero), t.start.set(c, start), m.set(c, minimum);
    }
    if (minimum_ && t_.w) Evaluate<true, true>(v_, t_, t, s, m, sums, error);
    else if (minimum_) Evaluate<true, false>(v_, t_, t, s, m, sums, error);
    else if (t_.w) Evaluate<false, true>(v_, t_, t, s, m, sums, error);
    else Evaluate<false, false>(v_, t_, t, s, m, sums, error);
  }
  void Keep(const Numbers& s, const Numbers& shift, Numbers& best_s, Numbers& best_shift, Numbers& least,
            Sums& sums) const {
    Numbers error;
    Judge(s, shift, sums, error);
    for (int c = 0; c < kColumns; c += LanesF()) {
      const auto better = hn::Lt(error.at(c), least.at(c));
      least.set(c, hn::IfThenElse(better, error.at(c), least.at(c)));
      best_s.set(c, hn::IfThenElse(better, s.at(c), best_s.at(c)));
      best_shift.set(c, hn::IfThenElse(better, shift.at(c), best_shift.at(c)));
    }
  }

  // Least-squares scale and minimum of the sums, and the squared error that they take away.
  HWY_INLINE void Solve(int c, const Sums& a, VF& s, VF& m, VF& gain) const {
    const DF d;
    const VF zero = hn::Zero(d), ll = a.ll.at(c), l = a.l.at(c), xl = a.xl.at(c), sx = o_.sx.at(c), sw = o_.sw.at(c);
    const VF full = hn::Mul(ll, sw), det = hn::NegMulAdd(l, l, full);
    const auto flat = hn::Le(det, hn::Mul(hn::Set(d, 1e-6f), full));  // all codes equal
    const VF inverse = Inverse(d, hn::IfThenElse(flat, zero, det));
    s = hn::Mul(hn::Sub(hn::Mul(sw, xl), hn::Mul(l, sx)), inverse);  // 0 where it is flat
    m = hn::IfThenElse(flat, hn::Mul(sx, Inverse(d, sw)), hn::Mul(hn::Sub(hn::Mul(ll, sx), hn::Mul(l, xl)), inverse));
    if (s_.minimum_below_zero) {
      const auto above = hn::Gt(m, zero);
      s = hn::IfThenElse(above, hn::Mul(xl, Inverse(d, ll)), s);
      m = hn::IfThenElse(above, zero, m);
    }
    gain = hn::MulAdd(s, xl, hn::Mul(m, sx));
  }

  // The best of the starts, each after one least-squares fit, not rounded. Integer zeros stay those of the start.
  template <bool kShift>
  void Starts(const SchemeTuning& p, Numbers& best_s, Numbers& best_shift) const {
    const DF d;
    Numbers best_gain;
    for (int c = 0; c < kColumns; c += LanesF()) {
      VF shift = hn::Set(d, ZeroOf(0)), gain = hn::Set(d, -1.0f);
      if (kShift) {  // one value for all
        const VF sx = o_.sx.at(c);
        shift = hn::Mul(sx, Inverse(d, o_.sw.at(c)));
        if (s_.minimum_below_zero) shift = hn::Min(shift, hn::Zero(d));
        gain = hn::Mul(shift, sx);
      }
      best_s.set(c, hn::Zero(d));
      best_shift.set(c, shift);
      best_gain.set(c, gain);
    }
    Trial t[2];
    Sums a[2];
    for (int k = 0; k < p.starts; k += 2) {
      SetStart<kShift>(p.start[k], t[0]);
      SetStart<kShift>(p.start[k + 1], t[1]);
      if (t_.w) Pass<kShift, true>(v_, t_, t, a);
      else Pass<kShift, false>(v_, t_, t, a);
      for (int h = 0; h < 2; ++h)
        for (int c = 0; c < kColumns; c += LanesF()) {
          VF s, m, gain;
          if constexpr (kShift) {
            Solve(c, a[h], s, m, gain);
          } else {
            const VF xl = a[h].xl.at(c);
            s = hn::Mul(xl, Inverse(d, a[h].ll.at(c)));
            m = t[h].zero.at(c);
            gain = hn::Mul(s, xl);
          }
          // the margin keeps the first of equals: constant groups agree
          const VF most = best_gain.at(c);
          const auto better = hn::Gt(gain, hn::Mul(most, hn::Set(d, 1.0000005f)));
          best_gain.set(c, hn::IfThenElse(better, gain, most));
          best_s.set(c, hn::IfThenElse(better, s, best_s.at(c)));
          best_shift.set(c, hn::IfThenElse(better, m, best_shift.at(c)));
        }
    }
  }

  template <bool kShift>
  HWY_INLINE void SetStart(const float* start, Trial& t) const {
    const DF d;
    const CodeValues& v = *s_.values;
    const float a = start[0], b = start[1];
    const VF zero = hn::Zero(d);
    if (!kShift && f_.zeros != Zero::kInteger) {
      const float end = (a < 0 ? v.low : v.high) / b, fixed = V::kWhole ? f_.zero : 0;
      for (int c = 0; c < kColumns; c += LanesF()) {
        VF inverse = hn::Mul(hn::Set(d, end), Inverse(d, o_.extreme.at(c)));
        if (!f_.negative_scale) inverse = hn::Abs(inverse);
        t.inverse.set(c, inverse);
        t.zero.set(c, hn::Set(d, f_.zero));
        t.start.set(c, hn::Set(d, fixed));
      }
      return;
    }
    const bool any = kShift && !s_.minimum_below_zero;
    const float last = V::kWhole ? float(v.codes - 1) : v.high - v.low, zero_high = float((1 << f_.shift.bits) - 1);
    const VF origin = hn::Set(d, V::kWhole ? 0 : v.low), per_step = hn::Set(d, 1 / float(v.codes - 1));
    for (int c = 0; c < kColumns; c += LanesF()) {
      VF low = o_.low.at(c), high = o_.high.at(c);
      if (!any) low = hn::Min(low, zero), high = hn::Max(high, zero);
      const VF step = hn::Mul(hn::Sub(high, low), per_step);
      const VF from = hn::MulAdd(hn::Set(d, a), step, low), to = hn::NegMulAdd(hn::Set(d, b), step, high);
      const VF inverse = hn::Mul(hn::Set(d, last), Inverse(d, hn::Sub(to, from)));
      VF start = hn::NegMulAdd(from, inverse, origin);
      if (!kShift) start = hn::Min(hn::Max(hn::Round(start), zero), hn::Set(d, zero_high));
      t.inverse.set(c, inverse);
      t.start.set(c, start);
      t.zero.set(c, start);
    }
  }

  // A fit as it will be stored.
  void Store(const Numbers& s, const Numbers& shift, Numbers& stored_s, Numbers& stored_shift) const {
    const DF d;
    for (int c = 0; c < kColumns; c += LanesF()) {
      VF scale = s.at(c), at = shift.at(c);
      if (f_.zeros == Zero::kFloat) {  // of one value: code 0 less a zero of -1
        const auto flat = hn::Eq(scale, hn::Zero(d));
        scale = StoredScale(d, s_, hn::IfThenElse(flat, at, scale));
        at = hn::IfThenElse(flat, hn::Set(d, -1.0f), hn::Neg(hn::Mul(at, Invert(d, scale))));
      } else {
        scale = StoredScale(d, s_, scale);
        if (f_.zeros == Zero::kMinimum) at = hn::MulAdd(hn::Set(d, f_.zero), scale, at);
      }
      stored_s.set(c, scale);
      stored_shift.set(c, StoredShift(d, s_, at));
    }
  }

  void Refit(const Sums& sums, Numbers& s, Numbers& shift, const Numbers& stored_shift) const {
    const DF d;
    for (int c = 0; c < kColumns; c += LanesF()) {
      if (minimum_) {
        VF fit, m, gain;
        Solve(c, sums, fit, m, gain);
        s.set(c, fit);
        shift.set(c, m);
      } else {
        s.set(c, hn::Mul(sums.xl.at(c), Inverse(d, sums.ll.at(c))));
        shift.set(c, stored_shift.at(c));
      }
    }
    if (!minimum_) return;
    for (int c = 0; c < kColumns; c += LanesF()) {  // the best minimum for the scale as it will be stored
      const VF rounded = StoredScale(d, s_, s.at(c)),
               free = hn::Mul(hn::NegMulAdd(rounded, sums.l.at(c), o_.sx.at(c)), Inverse(d, o_.sw.at(c)));
      VF m = hn::IfThenElse(hn::Eq(rounded, hn::Zero(d)), shift.at(c), free);
      if (s_.minimum_below_zero) m = hn::Min(m, hn::Zero(d));
      shift.set(c, m);
    }
  }

  const SchemeSearch& s_;
  const V& v_;
  const GroupTile& t_;
  const Scheme& f_;
  Outline o_;
  bool minimum_;
};

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_SEARCH_INL_H_
