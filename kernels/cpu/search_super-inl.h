// Scales in two levels: one number per block times an integer per group. The pieces of the search: the number whose
// rounded products stay close to what each group wants; integers and numbers refitted to codes.
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

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_SUPER_INL_H_
