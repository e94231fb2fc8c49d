// One vector per lane; the rows of the book are gone through one by one.
#include "kernels/cpu/codebook.h"

#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/codebook.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant::codebook {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kAtOnce = 32;  // vectors: two chains of sums on the widest target
using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;

// t: x and w of kAtOnce vectors, transposed. The distance less x^2, halved: w * (row^2 / 2 - x * row).
template <int kDim, bool kWeights>
HWY_INLINE void NearestOfTile(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, const float* HWY_RESTRICT rows,
                              const float* HWY_RESTRICT halves, int count, int32_t* HWY_RESTRICT best_row) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < kAtOnce; c += lanes) {
    VF xv[kDim], wv[kDim];
    for (int k = 0; k < kDim; ++k) {
      xv[k] = hn::Load(d, x + size_t(k) * kAtOnce + c);
      if constexpr (kWeights) {
        wv[k] = hn::Load(d, w + size_t(k) * kAtOnce + c);
        xv[k] = hn::Mul(xv[k], wv[k]);
      }
    }
    VF least = hn::Set(d, 3e38f);
    auto row = hn::Zero(di);
    for (int r = 0; r < count; ++r) {
      const float* const value = rows + r * kDim;
      VF distance = kWeights ? hn::Zero(d) : hn::Set(d, halves[r]);
      for (int k = 0; k < kDim; ++k) {
        const VF v = hn::Set(d, value[k]);
        if constexpr (kWeights) distance = hn::MulAdd(wv[k], hn::Set(d, value[k] * value[k] * 0.5f), distance);
        distance = hn::NegMulAdd(xv[k], v, distance);
      }
      const auto nearer = hn::Lt(distance, least);
      least = hn::Min(distance, least);
      row = hn::IfThenElse(hn::RebindMask(di, nearer), hn::Set(di, r), row);
    }
    hn::Store(row, di, best_row + c);
  }
}

template <int kDim, bool kWeights>
HWY_NOINLINE void Nearest(const float* x, const float* w, size_t n, const float* rows, int count, uint8_t* codes) {
  std::vector<float> halves(static_cast<size_t>(count));
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < kDim; ++k) halves[size_t(r)] += rows[r * kDim + k] * rows[r * kDim + k] * 0.5f;
  alignas(64) float tx[kDim * kAtOnce] = {}, tw[kDim * kAtOnce] = {};
  alignas(64) int32_t best[kAtOnce];
  for (size_t i = 0; i < n; i += kAtOnce) {
    const size_t used = HWY_MIN(kAtOnce, n - i);
    for (size_t v = 0; v < used; ++v)
      for (int k = 0; k < kDim; ++k) {
        tx[size_t(k) * kAtOnce + v] = x[(i + v) * kDim + size_t(k)];
        if constexpr (kWeights) tw[size_t(k) * kAtOnce + v] = w[(i + v) * kDim + size_t(k)];
      }
    NearestOfTile<kDim, kWeights>(tx, tw, rows, halves.data(), count, best);
    for (size_t v = 0; v < used; ++v) codes[i + v] = uint8_t(best[v]);
  }
}

template <int kDim>
void WithWeights(const float* x, const float* w, size_t n, const float* rows, int count, uint8_t* codes) {
  if (w) Nearest<kDim, true>(x, w, n, rows, count, codes);
  else Nearest<kDim, false>(x, w, n, rows, count, codes);
}
void NearestRowsTargeted(const float* x, const float* w, size_t n, int dim, const float* rows, int count, uint8_t* codes) {
  if (dim == 2) WithWeights<2>(x, w, n, rows, count, codes);
  else if (dim == 4) WithWeights<4>(x, w, n, rows, count, codes);
  else WithWeights<8>(x, w, n, rows, count, codes);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::codebook
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace codebook {
HWY_EXPORT(NearestRowsTargeted);
}  // namespace codebook

void NearestRows(const float* x, const float* w, size_t n, int dim, const float* rows, int count, uint8_t* codes) {
  using namespace codebook;
  HWY_DYNAMIC_DISPATCH(NearestRowsTargeted)(x, w, n, dim, rows, count, codes);
}

}  // namespace edgequant
#endif
