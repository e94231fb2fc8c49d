// Stored numbers of run-time formats, in vectors: what format/cell.h does one by one.
#if defined(EDGEQUANT_CELLS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_CELLS_INL_H_
#undef EDGEQUANT_CELLS_INL_H_
#else
#define EDGEQUANT_CELLS_INL_H_
#endif

#include <string.h>

#include "format/cell.h"
#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/search_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Codes of E8M0, as E8M0FromF32.
HWY_INLINE VI CodeE8M0(DF d, VF v) {
  const DI di;
  const VI nearest = hn::ShiftRight<23>(hn::Add(hn::BitCast(di, v), hn::Set(di, 0x400000)));
  return hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(v, hn::Set(d, 0x1p-127f))), hn::Min(nearest, hn::Set(di, 254)));
}
HWY_INLINE VF ValueE8M0(DF d, VI code) {
  const DI di;
  return hn::BitCast(d, hn::Max(hn::ShiftLeft<23>(code), hn::Set(di, 0x400000)));
}

// Nearest E4M3, ties to even: what is at most half a step away is pushed out by a sum; below 2^-6 steps are 2^-9.
HWY_INLINE VF ValueE4M3(DF d, VF v) {
  const DI di;
  const VF magnitude = hn::Min(hn::Abs(v), hn::Set(d, 448.0f));
  const VI exponent = hn::Max(hn::And(hn::BitCast(di, magnitude), hn::Set(di, 0x7f800000)), hn::Set(di, 121 << 23));
  const VF big = hn::BitCast(d, hn::Add(exponent, hn::Set(di, (20 << 23) | 0x400000)));
  return hn::CopySignToAbs(hn::Sub(hn::Add(magnitude, big), big), v);
}
HWY_INLINE VI CodeE4M3(DF d, VF v) {
  const DI di;
  const hn::RebindToUnsigned<DF> du;
  const VF small = hn::Mul(hn::Abs(ValueE4M3(d, v)), hn::Set(d, 0x1p-120f));  // exact: its bits are those of the code
  const VI sign = hn::BitCast(di, hn::ShiftRight<31>(hn::BitCast(du, v)));
  return hn::Or(hn::ShiftRight<20>(hn::BitCast(di, small)), hn::ShiftLeft<7>(sign));
}
#endif

// Numbers as they will be read back, as AsStored; not for integers.
HWY_INLINE VF Rounded(DF d, Cell cell, VF v) {
  const float limit = CellLimit(cell);
  v = hn::Min(hn::Max(v, hn::Set(d, -limit)), hn::Set(d, limit));
  if (cell == Cell::kF32) return v;
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, AsStored(cell, hn::GetLane(v)));
#else
  if (cell == Cell::kF16) return PromoteF16(d, DemoteF16(d, v));
  if (cell == Cell::kBF16) return PromoteBF16(d, DemoteBF16(d, v));
  if (cell == Cell::kE8M0) return ValueE8M0(d, CodeE8M0(d, v));
  return ValueE4M3(d, v);
#endif
}

// n numbers side by side, as WriteCell.
HWY_INLINE void StoreCells(Cell cell, const float* HWY_RESTRICT v, size_t n, uint8_t* HWY_RESTRICT out) {
  const size_t bytes = size_t(CellBits(cell)) / 8;
  size_t i = 0;
  if (cell == Cell::kF32) {
    memcpy(out, v, n * sizeof(float));
    return;
  }
#if HWY_TARGET != HWY_SCALAR
  const DF d;
  const size_t lanes = size_t(LanesF());
  if (cell == Cell::kF16 || cell == Cell::kBF16) {
    const hn::Rebind<uint16_t, DF> d16;
    alignas(64) uint16_t halves[kColumns];  // `out` need not be aligned to its numbers
    for (; i + lanes <= n; i += lanes) {
      const VF x = hn::LoadU(d, v + i);
      hn::Store(cell == Cell::kF16 ? DemoteF16(d, x) : DemoteBF16(d, x), d16, halves);
      memcpy(out + i * 2, halves, lanes * 2);
    }
  } else {
    const hn::Rebind<uint8_t, DF> d8;
    for (; i + lanes <= n; i += lanes) {
      const VF x = hn::LoadU(d, v + i);
      hn::StoreU(hn::DemoteTo(d8, cell == Cell::kE8M0 ? CodeE8M0(d, x) : CodeE4M3(d, x)), d8, out + i);
    }
  }
#endif
  for (; i < n; ++i) WriteCell(cell, v[i], out + i * bytes);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_CELLS_INL_H_
