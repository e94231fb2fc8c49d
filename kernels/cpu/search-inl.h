// The search of whole rows: tiles of 16 groups are filled, searched and packed.
#if defined(EDGEQUANT_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_INL_H_
#undef EDGEQUANT_SEARCH_INL_H_
#else
#define EDGEQUANT_SEARCH_INL_H_
#endif

#include "kernels/cpu/search_one-inl.h"
#include "kernels/cpu/search_pack-inl.h"
#include "kernels/cpu/search_two-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

HWY_INLINE float MeanSquare(const float* x, size_t n) {  // n is a multiple of 16
  alignas(64) float sum[kColumns] = {};
  const DF d;
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF s = hn::Zero(d);
    for (size_t i = size_t(c); i < n; i += kColumns) {
      const VF v = hn::LoadU(d, x + i);
      s = hn::MulAdd(v, v, s);
    }
    hn::Store(s, d, sum + c);
  }
  return SumOfBlock<kColumns>(sum) / float(n);
}

// What a tile's groups decode with, and for two levels what is stored.
struct Found {
  Super z;
  alignas(64) float s[kColumns], m[kColumns];
};

template <const Block& kB, int S>
HWY_NOINLINE void SearchTile(Tile<S>& tile, const Tuning& p, Found& found) {
  if constexpr (ShapeOf(kB).two_level) {
    SearchSuper<kB, S>(tile, p, found.z);
    Decoded(found.z, found.s, found.m);
  } else {
    SearchOneLevel<kB, S>(tile, p, found.s, found.m);
  }
}

// Takes the blocks of y (with one level: the groups) that have less error, of two levels only those with a mark in one
// of their groups; null: all.
template <const Block& kB, int S>
HWY_NOINLINE void KeepBetter(const Tile<S>& tile, const Found& y, const float* marks, Found& found) {
  static constexpr Shape shape = ShapeOf(kB);
  alignas(64) float e0[kColumns], e1[kColumns];
  Residual<kB, S>(tile, found.s, found.m, e0);
  Residual<kB, S>(tile, y.s, y.m, e1);
  if constexpr (shape.two_level) {
    TakeBlocks<shape.groups>(y.z, [&](int b) {
      if (marks && SumOfBlock<shape.groups>(marks + b) == 0) return false;
      return SumOfBlock<shape.groups>(e1 + b) < SumOfBlock<shape.groups>(e0 + b);
    }, found.z);
    Decoded(found.z, found.s, found.m);
  } else {
    for (int j = 0; j < kColumns; ++j)
      if (e1[j] < e0[j]) found.s[j] = y.s[j], found.m[j] = y.m[j];
  }
}

// Marks groups in which one weight is more than four fifths of the weighted squares, of the group or of its block: from
// few starts a search may end anywhere then. False if there are none.
template <int S, int kGroups>
HWY_NOINLINE bool MarkUneven(const Tile<S>& t, bool of_block, float* HWY_RESTRICT marks) {
  const DF d;
  bool any = false;
  alignas(64) float all[kColumns];
  for (int c = 0; c < kColumns; c += LanesF()) {
    VF sum = hn::Zero(d), most = sum;
    for (int i = 0; i < S; ++i) {
      const VF x = hn::Load(d, &t.x[i][c]), square = hn::Mul(hn::Mul(x, x), hn::Load(d, &t.w[i][c]));
      sum = hn::Add(sum, square);
      most = hn::Max(most, square);
    }
    hn::Store(sum, d, all + c);
    hn::Store(most, d, marks + c);
  }
  for (int b = 0; b < kColumns && of_block; b += kGroups) {
    const float block = SumOfBlock<kGroups>(all + b);
    for (int j = 0; j < kGroups; ++j) all[b + j] = block;
  }
  for (int j = 0; j < kColumns; ++j) {
    marks[j] = marks[j] > 0.8f * all[j] ? 1.0f : 0.0f;
    any = any || marks[j] != 0;
  }
  return any;
}

template <const Block& kB>
HWY_NOINLINE void SearchBlocks(const SearchJob& job) {
  static constexpr Shape shape = ShapeOf(kB);
  constexpr int S = shape.group;
  const Tuning& p = *job.tuning;
  alignas(64) static constexpr float kZeros[S] = {};
  Tile<S> tile;
  Columns columns;
  const size_t per_row = job.cols / size_t(S), total = job.rows * per_row;
  const bool row_mean = job.weighting.scope == MeanScope::kRow && job.weighting.rule == WeightRule::kRootSquares;
  float mean = 0;
  size_t group_in_row = 0;
  const float* x = job.x;
  uint8_t* out = job.out;
  for (size_t at = 0; at < total; at += kColumns) {
    const int used = int(HWY_MIN(size_t(kColumns), total - at));
    for (int j = 0; j < kColumns; ++j) {
      columns.x[j] = j < used ? x + j * S : kZeros;
      columns.importance[j] = !job.importance ? nullptr : j < used ? job.importance + group_in_row * S : kZeros;
      if (row_mean && group_in_row == 0 && j < used) mean = MeanSquare(x + j * S, job.cols);
      columns.row_mean_square[j] = mean;
      if (++group_in_row == per_row) group_in_row = 0;
    }
    FillTile<S, shape.groups>(columns, job.weighting, tile);
    Found found;
    SearchTile<kB, S>(tile, p, found);
    const auto also = [&](const Tuning& other, const float* marks) HWY_ATTR {
      Found y;
      SearchTile<kB, S>(tile, other, y);
      KeepBetter<kB, S>(tile, y, marks, found);
    };
    if (job.also) also(*job.also, nullptr);
    if constexpr (shape.two_level) {
      alignas(64) float marks[kColumns];
      if (job.uneven && MarkUneven<S, shape.groups>(tile, false, marks)) also(*job.uneven, marks);
      if (job.dominated && MarkUneven<S, shape.groups>(tile, true, marks)) also(*job.dominated, marks);
    }
    const Super& z = found.z;
    const float *s = found.s, *m = found.m;
    for (int b = 0; b < used; b += shape.groups, out += kB.bytes) {
      alignas(64) uint8_t codes[kB.n];
      for (int j = 0; j < shape.groups; ++j) EmitCodes<kB, S>(x + (b + j) * S, s[b + j], m[b + j], codes + j * S);
      if constexpr (shape.two_level) {
        alignas(64) int scale[kColumns], minimum[kColumns];
        for (int j = 0; j < shape.groups; ++j) scale[j] = int(z.scale[b + j]), minimum[j] = int(z.minimum[b + j]);
        PackBlock<kB>(codes, z.d + b, scale, z.d_min + b, minimum, out);
      } else {
        float offset[kColumns];
        for (int j = 0; j < shape.groups; ++j) offset[j] = -m[b + j];
        PackBlock<kB>(codes, s + b, nullptr, offset, nullptr, out);
      }
    }
    x += kColumns * S;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_INL_H_
