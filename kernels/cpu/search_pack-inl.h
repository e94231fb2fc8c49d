// Final codes in the order of the row, and their packing: the SIMD form of format/encode.h. The description is a
// template argument, so all offsets, shifts and masks are constants.
#if defined(EDGEQUANT_SEARCH_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SEARCH_PACK_INL_H_
#undef EDGEQUANT_SEARCH_PACK_INL_H_
#else
#define EDGEQUANT_SEARCH_PACK_INL_H_
#endif

#include "format/encode.h"
#include "kernels/cpu/search_grid-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Planes: consecutive bytes take one slot of bits each, then the next slot of the same bytes.
constexpr bool IsPlanes(const Field& f) {
  return f.kind == FieldKind::kBits && f.lane_step == 8 && f.lanes >= 8 && (f.slots == 1 || f.slot_step == f.bits) &&
         f.start % 8 + f.slots * f.bits <= 8 && f.chunk_step % 8 == 0;
}
constexpr bool IsBytes(const Field& f) {
  return f.kind == FieldKind::kBits && f.bits == 8 && f.lanes == 1 && f.slots == 1 && f.chunk_step == 8 &&
         f.start % 8 == 0;
}
constexpr bool IsBitStream(const Field& f) {
  return f.kind == FieldKind::kBits && f.bits == 1 && f.lanes == 1 && f.slots == 1 && f.chunk_step == 1 &&
         f.start % 8 == 0;
}

// Bytes whose bits do not leave them: 16-bit shifts serve.
template <int kLeft, class D>
HWY_INLINE hn::Vec<D> ShiftBytes([[maybe_unused]] D d, hn::Vec<D> v) {
#if HWY_TARGET == HWY_SCALAR
  if constexpr (kLeft > 0) return hn::ShiftLeft<HWY_MAX(kLeft, 0)>(v);
  if constexpr (kLeft < 0) return hn::ShiftRight<HWY_MAX(-kLeft, 0)>(v);
#else
  const hn::Repartition<uint16_t, D> d16;
  if constexpr (kLeft > 0) return hn::BitCast(d, hn::ShiftLeft<HWY_MAX(kLeft, 0)>(hn::BitCast(d16, v)));
  if constexpr (kLeft < 0) return hn::BitCast(d, hn::ShiftRight<HWY_MAX(-kLeft, 0)>(hn::BitCast(d16, v)));
#endif
  return v;
}

template <Field kF, int kSlot, class D>
HWY_INLINE hn::Vec<D> GatherSlots(D d, const uint8_t* HWY_RESTRICT codes) {
  const auto bits = hn::And(hn::LoadU(d, codes + kSlot * kF.lanes), hn::Set(d, uint8_t(((1 << kF.bits) - 1) << kF.up)));
  const auto v = ShiftBytes<kF.start % 8 + kSlot * kF.bits - kF.up>(d, bits);
  if constexpr (kSlot + 1 == kF.slots) return v;
  else return hn::Or(v, GatherSlots<kF, kSlot + 1>(d, codes));
}

template <Field kF, int kN>
HWY_INLINE void PackCodes(const uint8_t* HWY_RESTRICT codes, uint8_t* HWY_RESTRICT block) {
  if constexpr (kF.kind == FieldKind::kNone) {
    return;
  } else if constexpr (IsBytes(kF)) {
    memcpy(block + kF.start / 8, codes, kN);
  } else if constexpr (IsPlanes(kF)) {
    const hn::CappedTag<uint8_t, kF.lanes> d;
    constexpr bool all_bits = kF.slots * kF.bits == 8;
    for (int chunk = 0; chunk < kN / (kF.lanes * kF.slots); ++chunk)
      for (int lane = 0; lane < kF.lanes; lane += int(hn::Lanes(d))) {
        uint8_t* at = block + (kF.start + chunk * kF.chunk_step) / 8 + lane;
        auto v = GatherSlots<kF, 0>(d, codes + chunk * kF.lanes * kF.slots + lane);
        if constexpr (!all_bits) v = hn::Or(v, hn::LoadU(d, at));
        hn::StoreU(v, d, at);
      }
  } else if constexpr (IsBitStream(kF) && kN % 32 == 0 && HWY_TARGET != HWY_SCALAR) {
    const hn::CappedTag<uint8_t, 32> d;
    const auto bit = hn::Set(d, uint8_t(1 << kF.up));
    for (int i = 0; i < kN; i += int(hn::Lanes(d)))
      hn::StoreMaskBits(d, hn::TestBit(hn::LoadU(d, codes + i), bit), block + (kF.start + i) / 8);
  } else {
    WriteCodes<kF>(codes, kN, block);
  }
}

// One block: numbers are the stored ones, integers as they decode.
template <const Block& kB>
HWY_INLINE void PackBlock(const uint8_t* codes, const float* scale, const int* scale_integer, const float* offset,
                          const int* offset_integer, uint8_t* HWY_RESTRICT block) {
  memset(block, 0, size_t(kB.bytes));
  PackCodes<kB.codes[0], kB.n>(codes, block);
  PackCodes<kB.codes[1], kB.n>(codes, block);
  PackCodes<kB.codes[2], kB.n>(codes, block);
  WriteLevel<kB.scale>(scale, scale_integer, kB.n, block);
  WriteLevel<kB.offset>(offset, offset_integer, kB.n, block);
}

// The codes of one group, S weights at x, for the scale s (and minimum m) that will decode.
template <const Block& kB, int S>
HWY_INLINE void EmitCodes(const float* HWY_RESTRICT x, float s, float m, uint8_t* HWY_RESTRICT codes) {
  const DF d;
  const hn::Rebind<uint8_t, DF> d8;
  const float inverse = s > 1e-30f || s < -1e-30f ? 1 / s : 0;
  for (int i = 0; i < S; i += LanesF()) {
    const VF v = hn::LoadU(d, x + i);
    VI code;
    if constexpr (ShapeOf(kB).affine)
      code = hn::ConvertTo(DI(), AffineValue<kB>(d, v, hn::Set(d, inverse), hn::Set(d, m * inverse)));
    else code = GridOf<kB>::Code(d, v, hn::Set(d, inverse));
    hn::StoreU(hn::U8FromU32(hn::BitCast(hn::RebindToUnsigned<DI>(), code)), d8, codes + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SEARCH_PACK_INL_H_
