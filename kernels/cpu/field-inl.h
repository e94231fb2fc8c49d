// Reading runs of a field as vectors of bytes. The field is a template argument, so that offsets, shifts and masks are
// constants.
#if defined(EDGEQUANT_FIELD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_FIELD_INL_H_
#undef EDGEQUANT_FIELD_INL_H_
#else
#define EDGEQUANT_FIELD_INL_H_
#endif

#include <hwy/highway.h>

#include <type_traits>

#include "kernels/cpu/access.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR
// body(0), body(step) ... body((count - 1) * step), each as a constant.
template <int kCount, int kStep, int kFirst = 0, class Body>
HWY_INLINE void ForEach(const Body& body) {
  if constexpr (kCount > 0) {
    body(std::integral_constant<int, kFirst>());
    ForEach<kCount - 1, kStep, kFirst + kStep>(body);
  }
}

template <int kN>
using ByteTag = hn::CappedTag<uint8_t, kN>;

template <int kBits, class D, class V>
HWY_INLINE V BitsRight(D d, V v) {  // leaves bits of the neighbour byte on top: mask afterwards
  if constexpr (kBits == 0) return v;
  const hn::Repartition<uint16_t, D> d16;
  return hn::BitCast(d, hn::ShiftRight<kBits>(hn::BitCast(d16, v)));
}
template <int kBits, class D, class V>
HWY_INLINE V BitsLeft(D d, V v) {  // the caller knows that nothing crosses a byte
  if constexpr (kBits == 0) return v;
  const hn::Repartition<uint16_t, D> d16;
  return hn::BitCast(d, hn::ShiftLeft<kBits>(hn::BitCast(d16, v)));
}

// Base-3 digit at the top of each byte: v * 3 >> 8, which is (v > 85) + (v > 170).
template <class D, class V>
HWY_INLINE V TopTrit(D d, V v) {
  const auto one = hn::Set(d, uint8_t{1});
  return hn::Add(hn::Min(hn::SaturatedSub(v, hn::Set(d, uint8_t{85})), one),
                 hn::Min(hn::SaturatedSub(v, hn::Set(d, uint8_t{170})), one));
}

template <Field kF, int kFirst, int kN>
HWY_INLINE hn::Vec<ByteTag<kN>> ReadPlane(const uint8_t* HWY_RESTRICT block) {
  const ByteTag<kN> d;
  constexpr int at = FirstBit(kF, kFirst);
  auto v = hn::LoadU(d, block + at / 8);
  if constexpr (kF.kind == FieldKind::kTrits) {
    constexpr int slot = SlotOf(kF, kFirst);
    for (int k = 0; k < slot; ++k) v = hn::Add(hn::Add(v, v), v);
    return TopTrit(d, v);
  } else if constexpr (kF.bits == 8) {
    return v;
  } else {  // shift to the final place at once, then mask
    constexpr int right = at % 8 - kF.up;
    v = right >= 0 ? BitsRight<std::max(right, 0)>(d, v) : BitsLeft<std::max(-right, 0)>(d, v);
    return hn::And(v, hn::Set(d, uint8_t(((1 << kF.bits) - 1) << kF.up)));
  }
}

template <Field kF, int kFirst, int kN, int kCount, int kBlockBytes>
HWY_INLINE hn::Vec<ByteTag<kN>> ReadWindow(const uint8_t* HWY_RESTRICT block) {
  const ByteTag<kN> d;
  const hn::Repartition<uint16_t, decltype(d)> d16;
  static constexpr Window<kN> w = WindowOf<kN>(kF, kFirst, kCount, kBlockBytes);
  const auto bytes = hn::LoadDup128(d, block + w.base);
  const auto even = hn::BitCast(d16, hn::TableLookupBytes(bytes, hn::Load(d, w.even)));
  const auto odd = hn::BitCast(d16, hn::TableLookupBytes(bytes, hn::Load(d, w.odd)));
  const auto e = hn::Mul(even, hn::Load(d16, w.even_factor)), o = hn::Mul(odd, hn::Load(d16, w.odd_factor));
  if constexpr (kF.kind == FieldKind::kTrits) {  // the low byte of the product
    const auto low = hn::Set(d16, uint16_t{255});
    return TopTrit(d, hn::BitCast(d, hn::Or(hn::And(e, low), hn::ShiftLeft<8>(o))));
  } else {  // the high byte
    const auto high = hn::Set(d16, uint16_t{0xff00});
    auto v = hn::BitCast(d, hn::Or(hn::ShiftRight<8>(e), hn::And(o, high)));
    if constexpr (kF.bits < 8) v = hn::And(v, hn::Set(d, uint8_t((1 << kF.bits) - 1)));
    return BitsLeft<kF.up>(d, v);
  }
}

// Elements [kFirst, kFirst + kN) of one field, of which the first kCount matter, shifted up by kF.up.
template <Field kF, int kFirst, int kN, int kCount, int kBlockBytes>
HWY_INLINE hn::Vec<ByteTag<kN>> ReadField(const uint8_t* HWY_RESTRICT block) {
  const ByteTag<kN> d;
  constexpr Access access = AccessOf(kF, kFirst, kN, kCount);
  if constexpr (access == Access::kAbsent) {
    return hn::Zero(d);
  } else if constexpr (access == Access::kPlane) {
    return ReadPlane<kF, kFirst, kN>(block);
  } else if constexpr (access == Access::kWindow) {
    return ReadWindow<kF, kFirst, kN, kCount, kBlockBytes>(block);
  } else if constexpr (kN == 16 && kCount == 16) {  // two halves, each in a window of its own
    return hn::ConcatLowerLower(d, ReadField<kF, kFirst + 8, 16, 8, kBlockBytes>(block),
                                ReadField<kF, kFirst, 16, 8, kBlockBytes>(block));
  } else {  // few and far between: one by one
    static_assert(kN == 16);
    alignas(16) uint8_t v[16] = {};
    for (int k = 0; k < kCount; ++k) v[k] = uint8_t(edgequant::ReadField(kF, block, kFirst + k));
    return hn::Load(d, v);
  }
}

// All fields of an array OR-ed together.
template <const Block& kB, int kFirst, int kN>
HWY_INLINE hn::Vec<ByteTag<kN>> ReadCodes(const uint8_t* HWY_RESTRICT block) {
  auto v = ReadField<kB.codes[0], kFirst, kN, kN, kB.bytes>(block);
  if constexpr (kB.codes[1].kind != FieldKind::kNone)
    v = hn::Or(v, ReadField<kB.codes[1], kFirst, kN, kN, kB.bytes>(block));
  if constexpr (kB.codes[2].kind != FieldKind::kNone)
    v = hn::Or(v, ReadField<kB.codes[2], kFirst, kN, kN, kB.bytes>(block));
  return v;
}
#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_FIELD_INL_H_
