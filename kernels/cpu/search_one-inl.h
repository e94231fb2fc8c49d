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
}

// 8-bit scales are few: the plain choice, which puts the greatest magnitude on the end of the grid, and its neighbours
// are all tried.
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
  int plain[kColumns];
  for (int j = 0; j < kColumns; ++j) plain[j] = NearestByte(kB.scale.type, most[j] / ShapeOf(kB).high);
  Fit f;
  for (int k = -p.scale_steps; k <= p.scale_steps; ++k) {
    for (int j = 0; j < kColumns; ++j) s[j] = FloatOfByte(kB.scale.type, HWY_MIN(HWY_MAX(plain[j] + k, 0), last));
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
