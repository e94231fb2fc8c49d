// One vector of 8 weights per lane. A point is a row of magnitudes, signs, and a shift of -1/4 or 1/4. For one shift
// the best signs are those of the shifted weights; where their product is not the one that the row demands, the
// cheapest sign is inverted. Rows are pairs of 32 half-rows of four magnitudes, whose gains are computed once.
#include "kernels/cpu/e8p_search.h"

#include "format/e8p.h"
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/e8p_search.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#ifndef EDGEQUANT_E8P_HALVES
#define EDGEQUANT_E8P_HALVES
namespace edgequant {

// Rows as pairs of half-rows, sorted by the first, even sums before odd ones: runs of the same first half and parity.
struct E8PRun {
  int head = 0, odd = 0, end = 0;
};
struct E8PHalves {
  int halves = 0, runs = 0;
  uint8_t level[81][4] = {};
  E8PRun run[kE8PRows] = {};
  uint8_t order[kE8PRows] = {}, tail[kE8PRows] = {};  // the row in this place; its second half
  int32_t row_odd[kE8PRows] = {};
  float row_magnitude[kE8PRows * 8] = {};
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
  for (int run = 0; run < 2 * h.halves; ++run) {
    const int head = run / 2, odd = run % 2, begin = n;
    for (int r = 0; r < kE8PRows; ++r) {
      if (both[r][0] != head || int(kE8PGrid.odd[r]) != odd) continue;
      h.tail[n] = both[r][1];
      h.row_odd[n] = odd;
      for (int k = 0; k < 8; ++k) h.row_magnitude[n * 8 + k] = float(kE8PGrid.level[r][k]) + 0.5f;
      h.order[n++] = uint8_t(r);
    }
    if (n > begin) h.run[h.runs++] = {head, odd, n};
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
using DI = hn::RebindToSigned<DF>;
using VI = hn::Vec<DI>;

// Per lane, of all half-rows: the gain, and what inverting the cheapest sign costs, where the sum of the row is even
// and odd (0 where the signs have the right product as they are).
struct HalfTables {
  alignas(64) float gain[2][81][kMaxLanes];
  alignas(64) float flip[2][2][81][kMaxLanes];
};

// Fills the tables for weights y (8 x lanes) with error weights w; odd: 1.0 where the number of minuses is odd, else 0.
HWY_INLINE void FillHalves(DF d, const float* HWY_RESTRICT y, const float* HWY_RESTRICT w, VF odd, HalfTables& t) {
  const VF even = hn::Sub(hn::Set(d, 1.0f), odd);
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
      hn::Store(hn::Mul(f, odd), d, t.flip[0][side][h]);
      hn::Store(hn::Mul(f, even), d, t.flip[1][side][h]);
    }
  }
}

// The best rows (their places in the sorted order) and their gains, for both shifts at once: each alone would wait for
// its own maximum.
HWY_INLINE void BestRows(DF d, const HalfTables* t, VF* best_out, VI* which_out) {
  const DI di;
  VF best0 = hn::Set(d, -3e38f), best1 = best0;
  VI which0 = hn::Zero(di), which1 = which0;
  int k = 0;
  for (int r = 0; r < kE8PHalves.runs; ++r) {
    const E8PRun& run = kE8PHalves.run[r];
    const VF gain0 = hn::Load(d, t[0].gain[0][run.head]), flip0 = hn::Load(d, t[0].flip[run.odd][0][run.head]);
    const VF gain1 = hn::Load(d, t[1].gain[0][run.head]), flip1 = hn::Load(d, t[1].flip[run.odd][0][run.head]);
    for (; k < run.end; ++k) {
      const int tail = kE8PHalves.tail[k];
      const VI here = hn::Set(di, k);
      const VF cost0 = hn::Min(flip0, hn::Load(d, t[0].flip[run.odd][1][tail]));
      const VF cost1 = hn::Min(flip1, hn::Load(d, t[1].flip[run.odd][1][tail]));
      const VF g0 = hn::Sub(hn::Add(gain0, hn::Load(d, t[0].gain[1][tail])), cost0);
      const VF g1 = hn::Sub(hn::Add(gain1, hn::Load(d, t[1].gain[1][tail])), cost1);
      which0 = hn::IfThenElse(hn::RebindMask(di, hn::Gt(g0, best0)), here, which0);
      which1 = hn::IfThenElse(hn::RebindMask(di, hn::Gt(g1, best1)), here, which1);
      best0 = hn::Max(g0, best0);
      best1 = hn::Max(g1, best1);
    }
  }
  best_out[0] = best0;
  best_out[1] = best1;
  which_out[0] = which0;
  which_out[1] = which1;
}

// The low bytes of the codes: signs of y, the cheapest of them inverted where their product is not the row's.
HWY_INLINE VI SignBytes(DF d, VI place, const VF* y, const VF* w, VI minus) {
  const DI di;
  const VI row = hn::ShiftLeft<3>(place), one = hn::Set(di, 1);
  const VI odd = hn::GatherIndex(di, kE8PHalves.row_odd, place);
  VI byte = hn::Zero(di), product = odd, cheapest = hn::Zero(di);
  VF least = hn::Set(d, 3e38f);
  for (int b = 0; b < 8; ++b) {
    const int k = kE8PSignOrder[b];
    const VF magnitude = hn::GatherIndex(d, kE8PHalves.row_magnitude, hn::Add(row, hn::Set(di, k)));
    const VF cost = hn::Mul(hn::Mul(w[k], hn::Abs(y[k])), magnitude);
    const VI negative = hn::And(hn::VecFromMask(di, hn::RebindMask(di, hn::Lt(y[k], hn::Zero(d)))), one);
    const VI bit = hn::Set(di, 1 << b);
    product = hn::Xor(product, negative);
    byte = hn::Or(byte, hn::And(hn::Sub(hn::Zero(di), negative), bit));
    const auto less = hn::Lt(cost, least);
    least = hn::Min(cost, least);
    cheapest = hn::IfThenElse(hn::RebindMask(di, less), bit, cheapest);
  }
  byte = hn::Xor(byte, hn::And(cheapest, hn::Sub(hn::Zero(di), product)));
  byte = hn::Xor(byte, hn::And(hn::Set(di, 0x80), hn::Sub(hn::Zero(di), odd)));
  return hn::Xor(byte, minus);
}

void NearestE8PTargeted(const float* x, size_t n, float inverse, const float* weights, size_t period, uint16_t* codes) {
  const DF d;
  const DI di;
  const size_t lanes = hn::Lanes(d);
  HalfTables t[2];
  alignas(64) float at[8 * kMaxLanes], w[8 * kMaxLanes], y[2][8 * kMaxLanes];
  alignas(64) int32_t rows[kMaxLanes], bytes[kMaxLanes];
  for (float& v : w) v = 1.0f;
  for (size_t v0 = 0; v0 < n; v0 += lanes) {
    const size_t count = HWY_MIN(lanes, n - v0);
    for (size_t lane = 0; lane < lanes; ++lane) {
      const size_t v = v0 + HWY_MIN(lane, count - 1);
      for (size_t k = 0; k < 8; ++k) at[k * kMaxLanes + lane] = x[v * 8 + k];
      if (weights)
        for (size_t k = 0; k < 8; ++k) w[k * kMaxLanes + lane] = weights[v % period * 8 + k];
    }
    VF best[2], norm[2];
    VI place[2];
    for (int s = 0; s < 2; ++s) {  // points above 1/4, points below -1/4
      VF signs = hn::Zero(d), squares = hn::Zero(d);
      for (size_t k = 0; k < 8; ++k) {
        const VF scaled = hn::Mul(hn::Load(d, at + k * kMaxLanes), hn::Set(d, inverse));
        const VF shifted = hn::Add(scaled, hn::Set(d, s == 0 ? -0.25f : 0.25f));
        hn::Store(shifted, d, y[s] + k * kMaxLanes);
        signs = hn::Xor(signs, shifted);
        squares = hn::MulAdd(hn::Mul(hn::Load(d, w + k * kMaxLanes), shifted), shifted, squares);
      }
      const VF odd = hn::IfThenElseZero(hn::Lt(hn::CopySign(hn::Set(d, 1.0f), signs), hn::Zero(d)), hn::Set(d, 1.0f));
      FillHalves(d, y[s], w, odd, t[s]);
      norm[s] = squares;
    }
    BestRows(d, t, best, place);
    const auto minus = hn::Lt(hn::Sub(norm[1], best[1]), hn::Sub(norm[0], best[0]));
    const auto minus_i = hn::RebindMask(di, minus);
    VF chosen[8], weight[8];
    for (size_t k = 0; k < 8; ++k) {
      chosen[k] = hn::IfThenElse(minus, hn::Load(d, y[1] + k * kMaxLanes), hn::Load(d, y[0] + k * kMaxLanes));
      weight[k] = hn::Load(d, w + k * kMaxLanes);
    }
    const VI which = hn::IfThenElse(minus_i, place[1], place[0]);
    hn::Store(which, di, rows);
    hn::Store(SignBytes(d, which, chosen, weight, hn::IfThenElseZero(minus_i, hn::Set(di, 1))), di, bytes);
    for (size_t lane = 0; lane < count; ++lane)
      codes[v0 + lane] = uint16_t(kE8PHalves.order[rows[lane]] << 8 | bytes[lane]);
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
