// One vector per lane; the rows of the book are gone through one by one.
#include "kernels/cpu/codebook.h"

#include <math.h>
#include <string.h>

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
                              const float* HWY_RESTRICT halves, size_t count, int32_t* HWY_RESTRICT best_row) {
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
    for (size_t r = 0; r < count; ++r) {
      VF distance[kTiles];
      for (size_t t = 0; t < kTiles; ++t) distance[t] = kWeights ? hn::Zero(d) : hn::Set(d, halves[r]);
      for (int k = 0; k < kDim; ++k) {
        const float value = rows[r * kDim + size_t(k)];
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
HWY_NOINLINE void Nearest(const float* x, const float* w, size_t n, const float* rows, size_t count, uint16_t* codes) {
  std::vector<float> halves(count);
  for (size_t r = 0; r < count; ++r)
    for (size_t k = 0; k < kDim; ++k) halves[r] += rows[r * kDim + k] * rows[r * kDim + k] * 0.5f;
  alignas(64) float tx[kDim * kAtOnce] = {}, tw[kDim * kAtOnce] = {};
  alignas(64) int32_t best[kAtOnce];
  for (size_t i = 0; i < n; i += kAtOnce) {
    const size_t used = HWY_MIN(kAtOnce, n - i);
    for (size_t v = 0; v < used; ++v)
      for (size_t k = 0; k < kDim; ++k) {
        tx[k * kAtOnce + v] = x[(i + v) * kDim + k];
        if constexpr (kWeights) tw[k * kAtOnce + v] = w[(i + v) * kDim + k];
      }
    NearestOfTile<kDim, kWeights>(tx, tw, rows, halves.data(), count, best);
    for (size_t v = 0; v < used; ++v) codes[i + v] = uint16_t(best[v]);
  }
}

template <int kDim>
void WithWeights(const float* x, const float* w, size_t n, const float* rows, size_t count, uint16_t* codes) {
  if (w) Nearest<kDim, true>(x, w, n, rows, count, codes);
  else Nearest<kDim, false>(x, w, n, rows, count, codes);
}
void NearestRowsTargeted(const float* x, const float* w, size_t n, int dim, const float* rows, size_t count,
                         uint16_t* codes) {
  if (dim == 2) WithWeights<2>(x, w, n, rows, count, codes);
  else if (dim == 4) WithWeights<4>(x, w, n, rows, count, codes);
  else WithWeights<8>(x, w, n, rows, count, codes);
}

// ---- In whole numbers: two in a lane of 32 bits

#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
#define EDGEQUANT_PAIRS 1  // elsewhere products of neighbours do not meet in one lane
#else
#define EDGEQUANT_PAIRS 0
#endif

// sum + the products of both halves of each lane.
HWY_INLINE VI AddPairs(VI a, VI b, VI sum) {
#if EDGEQUANT_PAIRS
  const hn::RebindToSigned<DF> di;
  const hn::Repartition<int16_t, decltype(di)> d16;
  VI rest = hn::Zero(di);
  return hn::ReorderWidenMulAccumulate(di, hn::BitCast(d16, a), hn::BitCast(d16, b), sum, rest);
#else
  const auto low = [&](VI v) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  sum = hn::Add(sum, hn::Mul(low(a), low(b)));
  return hn::Add(sum, hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b)));
#endif
}

// x: kDim / 2 rows of kAtOnce pairs.
template <int kDim>
HWY_INLINE void RoughTile(const RoughBook& book, const int32_t* HWY_RESTRICT x, int32_t* HWY_RESTRICT row,
                          float* HWY_RESTRICT distance) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  constexpr size_t kPairs = kDim / 2, kStep = kPairs + 1, kTiles = Tiles(kDim, false);
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < kAtOnce; c += kTiles * lanes) {
    VI xv[kTiles][kPairs], best[kTiles], best_row[kTiles];
    for (size_t t = 0; t < kTiles; ++t) {
      for (size_t k = 0; k < kPairs; ++k) xv[t][k] = hn::Load(di, x + k * kAtOnce + c + t * lanes);
      best[t] = hn::Set(di, INT32_MAX);
      best_row[t] = hn::Zero(di);
    }
    for (size_t first = 0; first < book.count; first += RoughBook::kAtOnce) {
      VI least[kTiles];
      for (size_t t = 0; t < kTiles; ++t) least[t] = hn::Set(di, INT32_MAX);
      const int32_t* HWY_RESTRICT p = book.rows.data() + first * kStep;
      const int32_t* const end = book.rows.data() + HWY_MIN(book.count, first + RoughBook::kAtOnce) * kStep;
      for (; p < end; p += kStep) {
        VI sum[kTiles];
        for (size_t t = 0; t < kTiles; ++t) sum[t] = hn::Set(di, p[kPairs]);
        for (size_t k = 0; k < kPairs; ++k) {
          const VI v = hn::Set(di, p[k]);
          for (size_t t = 0; t < kTiles; ++t) sum[t] = AddPairs(xv[t][k], v, sum[t]);
        }
        for (size_t t = 0; t < kTiles; ++t) least[t] = hn::Min(least[t], sum[t]);
      }
      for (size_t t = 0; t < kTiles; ++t) {
        const auto better = hn::Lt(hn::ShiftRight<8>(least[t]), hn::ShiftRight<8>(best[t]));
        best[t] = hn::IfThenElse(better, least[t], best[t]);
        best_row[t] = hn::IfThenElse(better, hn::Set(di, int32_t(first)), best_row[t]);
      }
    }
    const auto unit = hn::Set(d, book.distance_unit);
    for (size_t t = 0; t < kTiles; ++t) {
      hn::Store(hn::Add(best_row[t], hn::And(best[t], hn::Set(di, 255))), di, row + c + t * lanes);
      hn::Store(hn::Mul(hn::ConvertTo(d, hn::ShiftRight<8>(best[t])), unit), d, distance + c + t * lanes);
    }
  }
}

template <int kDim>
HWY_NOINLINE void Rough(const RoughBook& book, const float* HWY_RESTRICT x, size_t n, uint16_t* codes,
                        float* distance) {
  const DF d;
  const hn::Rebind<int16_t, DF> d16;
  const auto per_unit = hn::Set(d, book.per_unit), high = hn::Set(d, RoughBook::kMost),
             low = hn::Set(d, -RoughBook::kMost);
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kNumbers = kDim * kAtOnce, kPairs = kDim / 2;
  alignas(64) float rest[kNumbers] = {};
  alignas(64) int16_t whole[kNumbers];
  alignas(64) int32_t pairs[kPairs * kAtOnce], row[kAtOnce];
  alignas(64) float found[kAtOnce];
  for (size_t i = 0; i < n; i += kAtOnce) {
    const size_t used = HWY_MIN(kAtOnce, n - i);
    const float* HWY_RESTRICT from = x + i * kDim;
    if (used < kAtOnce) memcpy(rest, from, used * kDim * sizeof(float)), from = rest;
    for (size_t k = 0; k < kNumbers; k += lanes) {
      const VF u = hn::Min(hn::Max(hn::Mul(hn::LoadU(d, from + k), per_unit), low), high);
      hn::Store(hn::DemoteTo(d16, hn::ShiftLeft<4>(hn::NearestInt(u))), d16, whole + k);
    }
    for (size_t v = 0; v < kAtOnce; ++v)
      for (size_t k = 0; k < kPairs; ++k) memcpy(&pairs[k * kAtOnce + v], &whole[v * kDim + 2 * k], 4);
    RoughTile<kDim>(book, pairs, row, found);
    for (size_t v = 0; v < used; ++v) codes[i + v] = uint16_t(row[v]);
    memcpy(distance + i, found, used * sizeof(float));
  }
}

void RoughTargeted(const RoughBook& book, const float* x, size_t n, uint16_t* codes, float* distance) {
  if (book.dim == 2) Rough<2>(book, x, n, codes, distance);
  else if (book.dim == 4) Rough<4>(book, x, n, codes, distance);
  else Rough<8>(book, x, n, codes, distance);
}
#undef EDGEQUANT_PAIRS

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::codebook
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace codebook {
HWY_EXPORT(NearestRowsTargeted);
HWY_EXPORT(RoughTargeted);
}  // namespace codebook

void NearestRows(const float* x, const float* w, size_t n, int dim, const float* rows, size_t count, uint16_t* codes) {
  using namespace codebook;
  HWY_DYNAMIC_DISPATCH(NearestRowsTargeted)(x, w, n, dim, rows, count, codes);
}

void NearlyNearestRows(const RoughBook& book, const float* x, size_t n, uint16_t* codes, float* distance) {
  using namespace codebook;
  HWY_DYNAMIC_DISPATCH(RoughTargeted)(book, x, n, codes, distance);
}

// A distance and the index of its row, 8 bits, fill 32: products of all numbers of a vector have 23 and a sign.
RoughBook::RoughBook(const float* book, size_t n, int width) : dim(width), count(n), halves(n) {
  constexpr float kReach = 6;  // of a vector's numbers, times the largest of the book
  const size_t numbers = size_t(dim), pairs = numbers / 2;
  float most = 0;
  for (size_t k = 0; k < n * numbers; ++k) most = HWY_MAX(most, fabsf(book[k]));
  usable = most > 1e-12f && most < 1e12f;
  if (!usable) return;
  const float row_most = 0.9f * 0x1p23f / (kMost * float(dim)), row_per_unit = row_most / most;
  per_unit = kMost / (kReach * most);
  distance_unit = 1 / row_per_unit / per_unit;
  rows.resize(n * (pairs + 1));
  for (size_t r = 0; r < n; ++r) {
    int32_t* const to = &rows[r * (pairs + 1)];
    for (size_t k = 0; k < numbers; ++k) {
      const float v = book[r * numbers + k];
      halves[r] += v * v * 0.5f;
      const auto whole = uint32_t(uint16_t(int16_t(-16 * int(lrintf(v * row_per_unit)))));
      to[k / 2] = int32_t(uint32_t(to[k / 2]) | whole << (k % 2 * 16));
    }
    to[pairs] = int32_t(uint32_t(lrintf(halves[r] / distance_unit)) << 8 | uint32_t(r % kAtOnce));
  }
}

}  // namespace edgequant
#endif
