// Scales in one level: the group's scale (and offset) is stored as it is, as a 16-bit float or an 8-bit one.
#if defined(EDGEQUANT_SEARCH_ONE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_ONE_INL_H_
#undef EDGEQUANT_SEARCH_ONE_INL_H_
#else
#define EDGEQUANT_SEARCH_ONE_INL_H_
#endif

#include "kernels/cpu/search_super-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

HWY_INLINE void RoundToF16(float* v) {
  for (int j = 0; j < kColumns; ++j) v[j] = RoundToF16(v[j]);
}

// Moves the scales by up to `span` of their size; a minimum follows from the codes of some minima around.
template <const Block& kB, int S>
HWY_NOINLINE void PolishF16(const Tile<S>& t, int steps, float span, Fit& f, float* best_s, float* best_m) {
  constexpr bool affine = ShapeOf(kB).affine;
  const DF d;
  alignas(64) float s[kColumns], m[kColumns] = {}, error[kColumns], least[kColumns], center[kColumns],
                                 center_m[kColumns];
  memcpy(center, best_s, sizeof center);
  memcpy(center_m, best_m, sizeof center_m);
  Residual<kB, S>(t, best_s, best_m, least);
  const int shifts = affine ? 1 : 0;
  for (int k = -steps; k <= steps; ++k) {
    for (int j = 0; j < kColumns; ++j) s[j] = center[j] * (1 + span * float(k) / float(steps));
    RoundToF16(s);
    for (int shift = -shifts; shift <= shifts; ++shift) {
      if constexpr (affine) {
        // the middle of the range stays
        const float middle = ShapeOf(kB).high / 2;
        for (int j = 0; j < kColumns; ++j) m[j] = center_m[j] + (s[j] - center[j]) * middle + s[j] * float(shift) / 3;
        Evaluate<kB, S>(t, s, m, f, error);
        for (int c = 0; c < kColumns; c += LanesF()) {
          const VF want = hn::MulSub(hn::Load(d, s + c), hn::Load(d, f.l + c), hn::Load(d, f.x + c));
          hn::Store(hn::Mul(want, Inverse(d, hn::Load(d, f.w + c))), d, m + c);
        }
        RoundToF16(m);
      }
      Residual<kB, S>(t, s, m, error);
      for (int j = 0; j < kColumns; ++j)
        if (error[j] < least[j]) {
          least[j] = error[j];
          best_s[j] = s[j];
          best_m[j] = m[j];
        }
    }
  }
}

// The rule without a search: the ends of the range, or the extreme weight, on the ends of the grid. Kept where it is
// better.
template <const Block& kB, int S>
HWY_INLINE void TryPlain(const Tile<S>& t, float* best_s, float* best_m) {
  constexpr Shape shape = ShapeOf(kB);
  alignas(64) float s[kColumns], m[kColumns] = {}, error[kColumns], least[kColumns];
  for (int j = 0; j < kColumns; ++j) {
    float low = t.x[0][j], high = low;
    for (int i = 1; i < S; ++i) {
      low = HWY_MIN(low, t.x[i][j]);
      high = HWY_MAX(high, t.x[i][j]);
    }
    if (shape.affine) s[j] = (high - low) / shape.high, m[j] = -low;
    else if (kB.codes[0].is_signed) s[j] = HWY_MAX(high, -low) / shape.high;
    else s[j] = (high > -low ? high : low) / shape.low;
  }
  RoundToF16(s);
  RoundToF16(m);
  Residual<kB, S>(t, best_s, best_m, least);
  Residual<kB, S>(t, s, m, error);
  for (int j = 0; j < kColumns; ++j)
    if (error[j] < least[j]) best_s[j] = s[j], best_m[j] = m[j];
}

// 16-bit scales: the search is done before rounding, then codes and stored scale are refitted in turns.
template <const Block& kB, int S>
HWY_INLINE void SearchF16(const Tile<S>& t, const Tuning& p, float* best_s, float* best_m) {
  constexpr bool affine = ShapeOf(kB).affine;
  const DF d;
  Fit f;
  if constexpr (affine) FitAffine<kB, S, true>(t, p, f);
  else FitScale<kB, S>(t, p, f);
  alignas(64) float s[kColumns], m[kColumns] = {}, error[kColumns], least[kColumns] = {};
  for (int r = 0; r <= p.rounds; ++r) {
    memcpy(s, f.s, sizeof s);
    RoundToF16(s);
    if constexpr (affine) {
      for (int c = 0; c < kColumns; c += LanesF()) {  // the best minimum for the rounded scale
        const VF want = hn::MulSub(hn::Load(d, s + c), hn::Load(d, f.l + c), hn::Load(d, f.x + c));
        hn::Store(hn::Mul(want, Inverse(d, hn::Load(d, f.w + c))), d, m + c);
      }
      RoundToF16(m);
    }
    Evaluate<kB, S>(t, s, m, f, error);
    for (int j = 0; j < kColumns; ++j)
      if (r == 0 || error[j] < least[j]) {
        least[j] = error[j];
        best_s[j] = s[j];
        best_m[j] = m[j];
      }
    for (int c = 0; c < kColumns; c += LanesF()) {
      const VF ll = hn::Load(d, f.ll + c), xl = hn::Load(d, f.xl + c);
      VF next;
      if constexpr (affine) {
        const AffineSums sums = {hn::Load(d, f.l + c), ll, xl};
        next = Solve<true>(d, sums, hn::Load(d, f.x + c), hn::Load(d, f.w + c)).s;
      } else {
        next = hn::Mul(xl, Inverse(d, ll));
      }
      hn::Store(next, d, f.s + c);
    }
  }
  if (!p.polish) return;
  TryPlain<kB, S>(t, best_s, best_m);
  PolishF16<kB, S>(t, p.polish, 0.06f, f, best_s, best_m);
  PolishF16<kB, S>(t, p.polish, 0.008f, f, best_s, best_m);
}

// The greatest value but one.
template <const Block& kB>
constexpr float LastButOne() {
  float second = ShapeOf(kB).low;
  for (int c = 0; c < ShapeOf(kB).codes; ++c)
    if (ValueOf(kB, c) < ShapeOf(kB).high && ValueOf(kB, c) > second) second = ValueOf(kB, c);
  return second;
}

// 8-bit scales are few: the plain choice, which puts the greatest magnitude on the end of the grid, and its neighbours
// are all tried; and the one that puts it on the last value but one, where the gap to the last is wide.
template <const Block& kB, int S>
HWY_INLINE void SearchByte(const Tile<S>& t, const Tuning& p, float* best_s, float* best_m) {
  constexpr int last = kB.scale.type == Number::kUE4M3 ? kLastUE4M3 : kLastE8M0;
  const DF d;
  alignas(64) float most[kColumns], s[kColumns], error[kColumns], least[kColumns] = {};
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF v = hn::Zero(d);
    for (int i = 0; i < S; ++i) v = hn::Max(v, hn::Abs(hn::Load(d, &t.x[i][c])));
    hn::Store(v, d, most + c);
  }
  int plain[kColumns], second[kColumns];
  for (int j = 0; j < kColumns; ++j) {
    plain[j] = NearestByte(kB.scale.type, most[j] / ShapeOf(kB).high);
    second[j] = NearestByte(kB.scale.type, most[j] / LastButOne<kB>());
  }
  Fit f;
  for (int k = -p.scale_steps; k <= p.scale_steps + 1; ++k) {
    for (int j = 0; j < kColumns; ++j) {
      const int code = k <= p.scale_steps ? plain[j] + k : second[j];
      s[j] = FloatOfByte(kB.scale.type, HWY_MIN(HWY_MAX(code, 0), last));
    }
    Evaluate<kB, S>(t, s, nullptr, f, error);
    for (int j = 0; j < kColumns; ++j)
      if (k == -p.scale_steps || error[j] < least[j]) {
        least[j] = error[j];
        best_s[j] = s[j];
      }
  }
  for (int j = 0; j < kColumns; ++j) best_m[j] = 0;
}

template <const Block& kB, int S>
HWY_INLINE void SearchOneLevel(const Tile<S>& t, const Tuning& p, float* s, float* m) {
  if constexpr (SizeOf(kB.scale.type) == 1) SearchByte<kB, S>(t, p, s, m);
  else SearchF16<kB, S>(t, p, s, m);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_ONE_INL_H_
