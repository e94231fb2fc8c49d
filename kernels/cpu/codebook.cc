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

constexpr size_t kAtOnce = 64;  // vectors
using DF = hn::CappedTag<float, 16>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<hn::RebindToSigned<DF>>;

// As many vectors of lanes at a time as registers hold: what is loaded of a row of the book serves them all.
constexpr size_t Tiles(int dim, bool weights) {
  const size_t numbers = size_t(dim) * (weights ? 2 : 1);
  const size_t most = HWY_TARGET == HWY_SCALAR ? 1 : numbers <= 4 ? 4 : numbers <= 8 ? 2 : 1;
  return hn::MaxLanes(DF()) == 16 ? most : (most + 1) / 2;
}

// t: x and w of kAtOnce vectors, transposed. The distance less x^2, halved: w * (row^2 / 2 - x * row).
template <int kDim, bool kWeights>
HWY_INLINE void NearestOfTile(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, const float* HWY_RESTRICT rows,
                              const float* HWY_RESTRICT halves, int count, int32_t* HWY_RESTRICT best_row) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  constexpr size_t kTiles = Tiles(kDim, kWeights);
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < kAtOnce; c += kTiles * lanes) {
    VF xv[kTiles][kDim], wv[kTiles][kDim], least[kTiles];
    VI row[kTiles], index = hn::Zero(di);
    for (size_t t = 0; t < kTiles; ++t) {
      for (int k = 0; k < kDim; ++k) {
        xv[t][k] = hn::Load(d, x + size_t(k) * kAtOnce + c + t * lanes);
        if constexpr (kWeights) {
          wv[t][k] = hn::Load(d, w + size_t(k) * kAtOnce + c + t * lanes);
          xv[t][k] = hn::Mul(xv[t][k], wv[t][k]);
        }
      }
      least[t] = hn::Set(d, 3e38f);
      row[t] = hn::Zero(di);
    }
    for (int r = 0; r < count; ++r) {
      VF distance[kTiles];
      for (size_t t = 0; t < kTiles; ++t) distance[t] = kWeights ? hn::Zero(d) : hn::Set(d, halves[r]);
      for (int k = 0; k < kDim; ++k) {
        const float value = rows[r * kDim + k];
        const VF v = hn::Set(d, value);
        for (size_t t = 0; t < kTiles; ++t) {
          if constexpr (kWeights) distance[t] = hn::MulAdd(wv[t][k], hn::Set(d, value * value * 0.5f), distance[t]);
          distance[t] = hn::NegMulAdd(xv[t][k], v, distance[t]);
        }
      }
      for (size_t t = 0; t < kTiles; ++t) {
        row[t] = hn::IfThenElse(hn::RebindMask(di, hn::Lt(distance[t], least[t])), index, row[t]);
        least[t] = hn::Min(distance[t], least[t]);
      }
      index = hn::Add(index, hn::Set(di, 1));
    }
    for (size_t t = 0; t < kTiles; ++t) hn::Store(row[t], di, best_row + c + t * lanes);
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
