// The points of least cost themselves: codes, signs and the sums that the least-squares scale needs.
#if defined(EDGEQUANT_GRID_PICK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_PICK_INL_H_
#undef EDGEQUANT_GRID_PICK_INL_H_
#else
#define EDGEQUANT_GRID_PICK_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/cpu/grid_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, kGridLanes / 2>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
using VU = hn::Vec<DU>;
constexpr int kKeyLanes = kGridLanes / 2;

// A key is cost << 8 | flipped << 7 | entry of the second half, so the least key names its entry.
constexpr int kKeyCost = 8;
constexpr uint32_t kKeyFlip = 128, kKeyEntry = 127;

// Costs in keys have 24 bits: a weight's at most this.
template <int kDim>
constexpr float kMostCost = float((1 << 24) / kDim - 1);

// Costs of the weights of one vector as parts of keys, for lanes [c, c + kKeyLanes) at g.scale: quarters' sums, the
// third and fourth with their part of the entry; with kFlip also the least when one of the weights has the other sign.
template <int kDim, int kLevels, bool kFlip>
void FillParts(const GridIndex& index, GridWork& g, int row, size_t c, GridSigns signs, float delta) {
  const DF d;
  const DU du;
  const DI di;
  const int e = row / 8;
  for (size_t l = 0; l < kKeyLanes; l += hn::Lanes(d)) {
    const size_t at = c + l;
    alignas(64) float sides[kKeyLanes] = {};
    if (delta != 0)
      for (size_t k = 0; k < hn::Lanes(d); ++k) sides[k] = g.minus[e][at + k] ? -delta : delta;
    const VF shift = hn::Load(d, sides), scale = hn::Load(d, g.scale + at);
    const VF most = hn::Set(d, kMostCost<kDim>), over = hn::Div(most, hn::Load(d, g.full[e] + at));
    const auto put = [&](int weight, int k) HWY_ATTR {  // the costs of all levels, to g.single[.][4 k ...]
      VF x = hn::Load(d, g.x[weight] + at);
      if (signs != GridSigns::kNone) x = hn::Abs(x);
      const VF w = hn::Mul(hn::Load(d, g.w[weight] + at), over);
      for (int v = 0; v < kLevels; ++v) {
        const VF value = hn::Mul(scale, hn::Add(shift, hn::Set(d, index.value[v])));
        const VF keep = hn::Sub(x, value), other = hn::Add(x, value);
        const auto cost = [&](VF r) HWY_ATTR {
          return hn::ShiftLeft<kKeyCost>(hn::BitCast(du, hn::ConvertTo(di, hn::Min(hn::Mul(hn::Mul(r, r), w), most))));
        };
        hn::Store(cost(keep), du, g.single[0][k * kLevels + v] + l);
        if constexpr (kFlip) hn::Store(cost(other), du, g.single[1][k * kLevels + v] + l);
      }
    };
    for (int q = 0; q < 4; ++q) {
      const uint32_t step = q == 2 ? 1 : q == 3 ? (kDim == 8 ? kLevels * kLevels : kLevels) : 0;
      const auto single = [&](int flip, int k, int v)
                              HWY_ATTR { return hn::Load(du, g.single[flip][k * kLevels + v] + l); };
      if constexpr (kDim == 4) {
        put(row + q, 0);
        for (int v = 0; v < kLevels; ++v)
          for (int flip = 0; flip <= kFlip; ++flip)
            hn::Store(hn::Or(single(flip, 0, v), hn::Set(du, step * uint32_t(v))), du, g.part[flip][q][v] + l);
      } else {
        put(row + 2 * q, 0);
        put(row + 2 * q + 1, 1);
        uint32_t entry = 0;
        for (int v1 = 0, i = 0; v1 < kLevels; ++v1)
          for (int v0 = 0; v0 < kLevels; ++v0, ++i, entry += step) {
            const VU kept = hn::Add(single(0, 0, v0), single(0, 1, v1));
            hn::Store(hn::Or(kept, hn::Set(du, entry)), du, g.part[0][q][i] + l);
            if constexpr (kFlip) {
              const VU flipped =
                  hn::Min(hn::Add(single(1, 0, v0), single(0, 1, v1)), hn::Add(single(0, 0, v0), single(1, 1, v1)));
              hn::Store(hn::Or(flipped, hn::Set(du, entry)), du, g.part[1][q][i] + l);
            }
          }
      }
    }
  }
}

// Keys of the second half.
template <int kQuarter, bool kFlip>
void FillKeys(const GridIndex& index, GridWork& g) {
  const DU d;
  const size_t merges = index.merges.size();
  const GridIndex::Merge* HWY_RESTRICT merge = index.merges.data();
  for (size_t l = 0; l < kKeyLanes; l += hn::Lanes(d)) {
    uint32_t* HWY_RESTRICT to[2] = {g.keys[0] + l, g.keys[1] + l};
    for (int j = 0; j < kQuarter; ++j) {
      const VU s0 = hn::Load(d, g.part[0][3][j] + l), s1 = hn::Load(d, g.part[kFlip][3][j] + l);
      for (int i = 0; i < kQuarter; ++i) {
        const VU r0 = hn::Load(d, g.part[0][2][i] + l);
        hn::Store(hn::Add(r0, s0), d, to[0]);
        to[0] += kKeyLanes;
        if constexpr (kFlip) {
          const VU least = hn::Min(hn::Add(r0, s1), hn::Add(hn::Load(d, g.part[1][2][i] + l), s0));
          hn::Store(hn::Or(least, hn::Set(d, kKeyFlip)), d, to[1]);
          to[1] += kKeyLanes;
        }
      }
    }
    for (int plane = 0; plane < (kFlip ? 2 : 1); ++plane) {
      const uint32_t* t = g.keys[plane] + l;
      HWY_UNROLL(4)
      for (size_t k = 0; k < merges; ++k, to[plane] += kKeyLanes)
        hn::Store(hn::Min(hn::Load(d, Row(t, merge[k].a)), hn::Load(d, Row(t, merge[k].b))), d, to[plane]);
    }
  }
}

// The least key and the first half that has it, for vector v (first weight at `row`): g.key[v], g.half[v].
template <int kDim, int kLevels, bool kFlip>
void LeastKey(const GridIndex& index, GridWork& g, int row, int v, GridSigns signs, float delta) {
  constexpr int kQuarter = kDim == 8 ? kLevels * kLevels : kLevels;
  const DU d;
  const DI di;
  for (size_t c = 0; c < kGridLanes; c += kKeyLanes) {
    FillParts<kDim, kLevels, kFlip>(index, g, row, c, signs, delta);
    FillKeys<kQuarter, kFlip>(index, g);
    for (size_t l = 0; l < kKeyLanes; l += hn::Lanes(d)) {
      const size_t at = c + l;
      VU best0 = hn::Set(d, 0xffffffffu), best1 = best0;
      VI half0 = hn::Zero(di), half1 = half0;
      ForEachClass(index, [&](auto length, const GridIndex::RunClass& cl, const GridIndex::Run* run) HWY_ATTR {
        for (int r = 0; r < cl.count; ++r, ++run) {
          const uint16_t* members = index.members.data() + run->begin;
          const VU p0 = hn::Load(d, g.part[0][0][run->first] + l), q0 = hn::Load(d, g.part[0][1][run->second] + l);
          const VU a0 = hn::Add(p0, q0);
          const VU b0 = Least<length()>(d, g.keys[0] + l, members, cl.length);
          const VU least0 = hn::Min(best0, hn::Add(a0, b0));
          half0 =
              hn::IfThenElse(hn::Eq(hn::BitCast(di, least0), hn::BitCast(di, best0)), half0, hn::Set(di, run->half));
          best0 = least0;
          if constexpr (kFlip) {
            const VU a1 = hn::Min(hn::Add(p0, hn::Load(d, g.part[1][1][run->second] + l)),
                                  hn::Add(hn::Load(d, g.part[1][0][run->first] + l), q0));
            const VU b1 = Least<length()>(d, g.keys[1] + l, members, cl.length);
            const VU least1 = hn::Min(best1, hn::Min(hn::Add(a0, b1), hn::Add(a1, b0)));
            half1 =
                hn::IfThenElse(hn::Eq(hn::BitCast(di, least1), hn::BitCast(di, best1)), half1, hn::Set(di, run->half));
            best1 = least1;
          }
        }
      });
      hn::Store(hn::BitCast(di, best0), di, g.key[v][0] + at);
      hn::Store(half0, di, g.half[v][0] + at);
      if constexpr (kFlip) {
        hn::Store(hn::BitCast(di, best1), di, g.key[v][1] + at);
        hn::Store(half1, di, g.half[v][1] + at);
      }
    }
  }
}

// Turns the keys of group e into codes and signs, and adds to the sums.
template <int kDim>
void Decide(const GridIndex& index, GridWork& g, int e, GridSigns signs, float delta) {
  const DF d;
  const DI di;
  constexpr int kVectors = 8 / kDim, kHalf = kDim / 2;
  for (size_t c = 0; c < kGridLanes; c += hn::Lanes(d)) {
    auto odd = hn::Gt(hn::Zero(di), hn::Zero(di));
    auto flip_first = odd;
    if (signs == GridSigns::kEven) {
      odd = hn::Gt(hn::Load(di, g.odd[e] + c), hn::Zero(di));
      flip_first = odd;
      if constexpr (kVectors == 2) {
        const auto cost = [&](int v, int flip) HWY_ATTR {
          return hn::BitCast(di, hn::ShiftRight<kKeyCost>(hn::BitCast(DU(), hn::Load(di, g.key[v][flip] + c))));
        };
        flip_first = hn::And(odd, hn::Lt(hn::Add(cost(0, 1), cost(1, 0)), hn::Add(cost(0, 0), cost(1, 1))));
      }
    }
    VF shift = hn::Set(d, delta);
    alignas(64) float side[kGridLanes];
    if (delta != 0) {
      for (size_t l = 0; l < hn::Lanes(d); ++l) side[l] = g.minus[e][c + l] ? -delta : delta;
      shift = hn::Load(d, side);
    }
    VI negative = hn::Zero(di);
    VF sum_xq = hn::Load(d, g.sum_xq + c), sum_qq = hn::Load(d, g.sum_qq + c);
    for (int v = 0; v < kVectors; ++v) {
      const auto flip = v == 0 ? flip_first : hn::AndNot(flip_first, odd);
      VI key = hn::Load(di, g.key[v][0] + c), half = hn::Load(di, g.half[v][0] + c);
      if (signs == GridSigns::kEven) {
        key = hn::IfThenElse(flip, hn::Load(di, g.key[v][1] + c), key);
        half = hn::IfThenElse(flip, hn::Load(di, g.half[v][1] + c), half);
      }
      const VI entry = hn::And(key, hn::Set(di, kKeyEntry));
      hn::Store(hn::GatherIndex(di, index.row.data(), hn::Add(hn::Mul(half, hn::Set(di, index.half)), entry)), di,
                g.code[e * kVectors + v] + c);
      const VI words[2] = {hn::GatherIndex(di, index.word.data(), half), hn::GatherIndex(di, index.word.data(), entry)};
      // A flip costs 4 scale w |x| value: the least of the half that holds it.
      const auto in_second = hn::And(flip, hn::Gt(hn::And(key, hn::Set(di, kKeyFlip)), hn::Zero(di)));
      const auto in_first = hn::AndNot(in_second, flip);
      VF least = hn::Set(d, 1e38f);
      VI flipped = hn::Zero(di);
      for (int i = 0; i < kDim; ++i) {
        const int row = 8 * e + v * kDim + i;
        const VI byte = hn::ShiftRight<24>(hn::ShiftLeftSame(words[i / kHalf], 24 - 8 * (i % kHalf)));
        const VF x = hn::Load(d, g.x[row] + c), w = hn::Load(d, g.w[row] + c), value = hn::ConvertTo(d, byte);
        VF q = hn::Add(value, shift);
        if (signs != GridSigns::kNone) {
          const VI bit = hn::Set(di, 1 << (v * kDim + i));
          negative = hn::Or(negative, hn::IfThenElseZero(hn::RebindMask(di, hn::Lt(x, hn::Zero(d))), bit));
          q = hn::CopySign(q, x);
          if (signs == GridSigns::kEven) {
            const VF loss = hn::Mul(hn::Mul(w, hn::Abs(x)), value);
            const auto better = hn::And(hn::RebindMask(d, i < kHalf ? in_first : in_second), hn::Lt(loss, least));
            least = hn::IfThenElse(better, loss, least);
            flipped = hn::IfThenElse(hn::RebindMask(di, better), bit, flipped);
          }
        }
        const VF wq = hn::Mul(w, q);
        sum_xq = hn::MulAdd(wq, x, sum_xq);
        sum_qq = hn::MulAdd(wq, q, sum_qq);
      }
      if (signs == GridSigns::kEven) {
        // Of the sum, twice the flipped weight's share.
        negative = hn::Xor(negative, flipped);
        sum_xq = hn::Sub(sum_xq, hn::IfThenElseZero(hn::RebindMask(d, flip), hn::Mul(hn::Set(d, 2.0f), least)));
      }
    }
    hn::Store(negative, di, g.negative[e] + c);
    hn::Store(sum_xq, d, g.sum_xq + c);
    hn::Store(sum_qq, d, g.sum_qq + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif
