// One vector of 8 weights per lane. A point is a row of magnitudes, signs, and a shift of -1/4 or 1/4. For one shift
// the best signs are those of the shifted weights; where their product is not the one that the row demands, the
// cheapest sign is inverted. Rows are pairs of 32 half-rows of four magnitudes, whose gains are computed once.
#include "kernels/cpu/e8p_search.h"

#include "format/e8p.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/e8p_search.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#ifndef EDGEQUANT_E8P_HALVES
#define EDGEQUANT_E8P_HALVES
namespace edgequant {

// Rows as pairs of half-rows, sorted by the first; `first` lists where each new first half begins.
struct E8PHalves {
  int halves = 0;
  uint8_t level[81][4] = {};
  uint8_t head[kE8PRows] = {}, tail[kE8PRows] = {};  // of row order[k]
  uint8_t order[kE8PRows] = {};
};
constexpr E8PHalves MakeE8PHalves() {
  E8PHalves h;
  uint8_t both[kE8PRows][2] = {};
  for (int r = 0; r < kE8PRows; ++r)
    for (int side = 0; side < 2; ++side) {
      const uint8_t* level = kE8PGrid.level[r] + 4 * side;
      int at = 0;
      for (; at < h.halves; ++at) {
        bool same = true;
        for (int k = 0; k < 4; ++k) same = same && h.level[at][k] == level[k];
        if (same) break;
      }
      if (at == h.halves) {
        for (int k = 0; k < 4; ++k) h.level[at][k] = level[k];
        ++h.halves;
      }
      both[r][side] = uint8_t(at);
    }
  int n = 0;
  for (int head = 0; head < h.halves; ++head)
    for (int r = 0; r < kE8PRows; ++r)
      if (both[r][0] == head) {
        h.head[n] = uint8_t(head);
        h.tail[n] = both[r][1];
        h.order[n++] = uint8_t(r);
      }
  return h;
}
inline constexpr E8PHalves kE8PHalves = MakeE8PHalves();

}  // namespace edgequant
#endif

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxLanes = 16;
using DF = hn::CappedTag<float, kMaxLanes>;
using VF = hn::Vec<DF>;

// Gains and costs of inverting the cheapest sign of all half-rows, per lane.
struct HalfTables {
  alignas(64) float gain[2][81][kMaxLanes];
  alignas(64) float flip[2][81][kMaxLanes];
};

// Fills the tables for weights y (8 x lanes) with error weights w.
HWY_INLINE void FillHalves(DF d, const float* HWY_RESTRICT y, const float* HWY_RESTRICT w, HalfTables& t) {
  for (int side = 0; side < 2; ++side) {
    alignas(64) float gain[4][3][kMaxLanes], flip[4][3][kMaxLanes];
    for (int k = 0; k < 4; ++k) {
      const VF a = hn::Abs(hn::Load(d, y + (4 * side + k) * int(kMaxLanes)));
      const VF weight = hn::Load(d, w + (4 * side + k) * int(kMaxLanes));
      for (int l = 0; l < 3; ++l) {  // w (2 a m - m^2), and what the other sign costs: w 4 a m
        const float m = float(l) + 0.5f;
        const VF product = hn::Mul(hn::Mul(weight, a), hn::Set(d, 2 * m));
        hn::Store(hn::Sub(product, hn::Mul(weight, hn::Set(d, m * m))), d, gain[k][l]);
        hn::Store(hn::Add(product, product), d, flip[k][l]);
      }
    }
    for (int h = 0; h < kE8PHalves.halves; ++h) {
      const uint8_t* level = kE8PHalves.level[h];
      VF g = hn::Load(d, gain[0][level[0]]), f = hn::Load(d, flip[0][level[0]]);
      for (int k = 1; k < 4; ++k) {
        g = hn::Add(g, hn::Load(d, gain[k][level[k]]));
        f = hn::Min(f, hn::Load(d, flip[k][level[k]]));
      }
      hn::Store(g, d, t.gain[side][h]);
      hn::Store(f, d, t.flip[side][h]);
    }
  }
}

// The best row (its place in the sorted order, as a float) and its gain.
HWY_INLINE void BestRow(DF d, const HalfTables& t, VF negatives, VF& best, VF& which) {
  best = hn::Set(d, -3e38f);
  which = hn::Zero(d);
  // Full cost where the number of minuses (0 or 1, modulo 2) is not the row's.
  const VF odd_cost = hn::Sub(hn::Set(d, 1.0f), negatives), even_cost = negatives;
  for (int k = 0; k < kE8PRows;) {
    const int head = kE8PHalves.head[k];
    const VF gain = hn::Load(d, t.gain[0][head]), flip = hn::Load(d, t.flip[0][head]);
    for (; k < kE8PRows && kE8PHalves.head[k] == head; ++k) {
      const int tail = kE8PHalves.tail[k];
      const VF cost = hn::Mul(hn::Min(flip, hn::Load(d, t.flip[1][tail])),
                              kE8PGrid.odd[kE8PHalves.order[k]] ? odd_cost : even_cost);
      const VF g = hn::Sub(hn::Add(gain, hn::Load(d, t.gain[1][tail])), cost);
      const auto better = hn::Gt(g, best);
      best = hn::IfThenElse(better, g, best);
      which = hn::IfThenElse(better, hn::Set(d, float(k)), which);
    }
  }
}

// Of a row and the weights y of one lane: the code's low byte.
inline uint32_t SignByte(int row, const float* y, const float* w, size_t lane, bool minus) {
  uint32_t negative = 0;
  int cheapest = 0;
  float least = 3e38f;
  for (int k = 0; k < 8; ++k) {
    const float v = y[size_t(k) * kMaxLanes + lane];
    negative |= uint32_t(v < 0) << k;
    const float cost = w[size_t(k) * kMaxLanes + lane] * (v < 0 ? -v : v) * (float(kE8PGrid.level[row][k]) + 0.5f);
    if (cost < least) least = cost, cheapest = k;
  }
  const bool odd = kE8PGrid.odd[row];
  if ((__builtin_popcount(negative) & 1) != int(odd)) negative ^= 1u << cheapest;
  if (odd) negative ^= 0x80;
  uint32_t byte = 0;
  for (int b = 0; b < 8; ++b) byte |= (negative >> kE8PSignOrder[b] & 1) << b;
  return byte ^ uint32_t(minus);
}

void NearestE8PTargeted(const float* x, size_t n, float inverse, const float* weights, size_t period, uint16_t* codes) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  HalfTables t;
  alignas(64) float w[8 * kMaxLanes], y[2][8 * kMaxLanes], negatives[2][kMaxLanes], which[2][kMaxLanes], gain[2][kMaxLanes];
  for (float& v : w) v = 1.0f;
  for (size_t v0 = 0; v0 < n; v0 += lanes) {
    const size_t count = HWY_MIN(lanes, n - v0);
    double base[2][kMaxLanes] = {};
    for (size_t lane = 0; lane < lanes; ++lane) {
      const size_t v = v0 + HWY_MIN(lane, count - 1);
      uint32_t minus[2] = {0, 0};
      for (size_t k = 0; k < 8; ++k) {
        if (weights) w[k * kMaxLanes + lane] = weights[v % period * 8 + k];
        const float scaled = x[v * 8 + k] * inverse;
        for (int s = 0; s < 2; ++s) {  // points above 1/4, points below -1/4
          const float at = s == 0 ? scaled - 0.25f : scaled + 0.25f;
          y[s][k * kMaxLanes + lane] = at;
          base[s][lane] += double(w[k * kMaxLanes + lane]) * at * at;
          minus[s] ^= uint32_t(at < 0);
        }
      }
      for (int s = 0; s < 2; ++s) negatives[s][lane] = float(minus[s]);
    }
    for (int s = 0; s < 2; ++s) {
      FillHalves(d, y[s], w, t);
      VF best, row;
      BestRow(d, t, hn::Load(d, negatives[s]), best, row);
      hn::Store(best, d, gain[s]);
      hn::Store(row, d, which[s]);
    }
    for (size_t lane = 0; lane < count; ++lane) {
      const int s = base[1][lane] - double(gain[1][lane]) < base[0][lane] - double(gain[0][lane]);
      const int row = kE8PHalves.order[int(which[s][lane])];
      codes[v0 + lane] = uint16_t(uint32_t(row) << 8 | SignByte(row, y[s], w, lane, s == 1));
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(NearestE8PTargeted);
void NearestE8P(const float* x, size_t n, float inverse, const float* weights, size_t period, uint16_t* codes) {
  HWY_DYNAMIC_DISPATCH(NearestE8PTargeted)(x, n, inverse, weights, period, codes);
}

}  // namespace edgequant
#endif  // HWY_ONCE
