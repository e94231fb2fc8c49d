// A tile: 16 groups of S weights side by side, element i of all groups in one row, with the weights of their errors.
#if defined(EDGEQUANT_SEARCH_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_TILE_INL_H_
#undef EDGEQUANT_SEARCH_TILE_INL_H_
#else
#define EDGEQUANT_SEARCH_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/cpu/search.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kColumns = 16;  // one vector of AVX-512, two of AVX2, four of NEON
using DF = hn::CappedTag<float, kColumns>;
using VF = hn::Vec<DF>;
using DI = hn::RebindToSigned<DF>;
using VI = hn::Vec<DI>;
HWY_INLINE int LanesF() { return int(hn::Lanes(DF())); }

template <int S>
struct alignas(64) Tile {
  float x[S][kColumns], w[S][kColumns];
};

// Where the columns of a tile come from. Unused columns point to zeros.
struct Columns {
  const float* x[kColumns];
  const float* importance[kColumns];
  float row_mean_square[kColumns];
};

// 1 / s, and 0 where s is 0 or too small to invert.
HWY_INLINE VF Inverse(DF d, VF s) {
  const auto ok = hn::Gt(hn::Abs(s), hn::Set(d, 1e-30f));
  return hn::IfThenElseZero(ok, hn::Div(hn::Set(d, 1.0f), hn::IfThenElse(ok, s, hn::Set(d, 1.0f))));
}

// 4 x 4 blocks with 128-bit operations: the same code on every target.
template <int S>
HWY_INLINE void Transpose(const float* const* columns, float (*HWY_RESTRICT out)[kColumns]) {
#if HWY_TARGET == HWY_SCALAR
  for (int j = 0; j < kColumns; ++j)
    for (int i = 0; i < S; ++i) out[i][j] = columns[j][i];
#else
  const hn::CappedTag<float, 4> d4;
  const hn::Repartition<double, decltype(d4)> d2;
  const auto pairs = [&](auto v) HWY_ATTR { return hn::BitCast(d2, v); };
  const auto floats = [&](auto v) HWY_ATTR { return hn::BitCast(d4, v); };
  for (int j = 0; j < kColumns; j += 4) {
    const float *c0 = columns[j], *c1 = columns[j + 1], *c2 = columns[j + 2], *c3 = columns[j + 3];
    for (int i = 0; i < S; i += 4) {
      const auto v0 = hn::LoadU(d4, c0 + i), v1 = hn::LoadU(d4, c1 + i);
      const auto v2 = hn::LoadU(d4, c2 + i), v3 = hn::LoadU(d4, c3 + i);
      const auto low01 = pairs(hn::InterleaveLower(d4, v0, v1)), high01 = pairs(hn::InterleaveUpper(d4, v0, v1));
      const auto low23 = pairs(hn::InterleaveLower(d4, v2, v3)), high23 = pairs(hn::InterleaveUpper(d4, v2, v3));
      hn::Store(floats(hn::InterleaveLower(d2, low01, low23)), d4, &out[i][j]);
      hn::Store(floats(hn::InterleaveUpper(d2, low01, low23)), d4, &out[i + 1][j]);
      hn::Store(floats(hn::InterleaveLower(d2, high01, high23)), d4, &out[i + 2][j]);
      hn::Store(floats(hn::InterleaveUpper(d2, high01, high23)), d4, &out[i + 3][j]);
    }
  }
#endif
}

// The sum of one block's columns in an order that does not depend on the vector length.
template <int kGroups>
HWY_INLINE float SumOfBlock(const float* v) {
  static_assert(kGroups == 4 || kGroups == 8 || kGroups == 16);
  float t[4];
  for (int k = 0; k < 4; ++k) t[k] = v[k];
  for (int j = 4; j < kGroups; j += 4)
    for (int k = 0; k < 4; ++k) t[k] += v[j + k];
  return (t[0] + t[1]) + (t[2] + t[3]);
}

// Turns t.w, which holds the importance if there is one, into the weights of the squared errors.
template <int S, WeightRule kRule, bool kImportance>
HWY_INLINE void FillWeights(const float* mean_square, Tile<S>& t) {
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF mean = hn::Load(d, mean_square + c), rms = hn::Sqrt(mean);
    for (int i = 0; i < S; ++i) {
      const VF x = hn::Load(d, &t.x[i][c]);
      VF w = hn::Set(d, 1.0f);
      if constexpr (kRule == WeightRule::kSquare) w = hn::MulAdd(x, x, mean);
      if constexpr (kRule == WeightRule::kRmsPlusMagnitude) w = hn::Add(rms, hn::Abs(x));
      if constexpr (kRule == WeightRule::kRootSquares) w = hn::Sqrt(hn::MulAdd(x, x, mean));
      if constexpr (kImportance) w = hn::Mul(w, hn::Load(d, &t.w[i][c]));
      hn::Store(w, d, &t.w[i][c]);
    }
  }
}
template <int S, bool kImportance>
HWY_INLINE void FillWeights(WeightRule rule, const float* mean_square, Tile<S>& t) {
  switch (rule) {
    case WeightRule::kOne:
      if constexpr (!kImportance) FillWeights<S, WeightRule::kOne, false>(mean_square, t);
      return;  // the importance alone is there already
    case WeightRule::kSquare: return FillWeights<S, WeightRule::kSquare, kImportance>(mean_square, t);
    case WeightRule::kRmsPlusMagnitude:
      return FillWeights<S, WeightRule::kRmsPlusMagnitude, kImportance>(mean_square, t);
    case WeightRule::kRootSquares: return FillWeights<S, WeightRule::kRootSquares, kImportance>(mean_square, t);
  }
}

// kGroups: the columns of one block.
template <int S, int kGroups>
HWY_INLINE void FillTile(const Columns& columns, const Weighting& weighting, Tile<S>& t) {
  const DF d;
  Transpose<S>(columns.x, t.x);
  alignas(64) float mean_square[kColumns] = {};
  if (weighting.rule != WeightRule::kOne && weighting.factor != 0) {
    if (weighting.scope == MeanScope::kRow) {
      for (int j = 0; j < kColumns; ++j) mean_square[j] = weighting.factor * columns.row_mean_square[j];
    } else {
      const bool block = weighting.scope == MeanScope::kBlock;
      const VF factor = hn::Set(d, weighting.factor / float(block ? S * kGroups : S));
      for (int c = 0; c < kColumns; c += LanesF()) {
        VF sum = hn::Zero(d);
        for (int i = 0; i < S; ++i) {
          const VF x = hn::Load(d, &t.x[i][c]);
          sum = hn::MulAdd(x, x, sum);
        }
        hn::Store(hn::Mul(sum, factor), d, mean_square + c);
      }
      if constexpr (kGroups >= 4)
        if (block)
          for (int b = 0; b < kColumns; b += kGroups) {
            const float sum = SumOfBlock<kGroups>(mean_square + b);
            for (int j = 0; j < kGroups; ++j) mean_square[b + j] = sum;
          }
    }
  }
  if (columns.importance[0]) {
    Transpose<S>(columns.importance, t.w);
    FillWeights<S, true>(weighting.rule, mean_square, t);
  } else {
    FillWeights<S, false>(weighting.rule, mean_square, t);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_TILE_INL_H_
