// GGML's rules for its legacy types: the scale follows from the extreme weights of a block, codes are rounded for the
// scale before it is rounded to 16 bits. Each step rounds as the reference does, so the bytes are the same.
#if defined(EDGEQUANT_ROUND_LEGACY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_LEGACY_INL_H_
#undef EDGEQUANT_ROUND_LEGACY_INL_H_
#else
#define EDGEQUANT_ROUND_LEGACY_INL_H_
#endif

#include <math.h>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/round_numbers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

HWY_INLINE void StoreF16(DF d, VF v, uint16_t* to) {
#if HWY_TARGET == HWY_SCALAR
  (void)d;
  *to = F16FromF32(hn::GetLane(v));
#else
  hn::StoreU(DemoteF16(d, v), hn::Rebind<uint16_t, DF>(), to);
#endif
}

// Of two extremes with opposite signs the first one counts; a zero is positive.
template <int S>
HWY_INLINE float FirstExtreme(const float* HWY_RESTRICT x, float magnitude) {
  for (int i = 0; i < S; ++i)
    if (fabsf(x[i]) == magnitude) return magnitude == 0 ? 0.0f : x[i];
  return 0;
}
// Vector minima lose the sign of zero; the reference keeps that of the first zero, and writes it.
template <int S>
HWY_INLINE float FirstZero(const float* HWY_RESTRICT x) {
  for (int i = 0; i < S; ++i)
    if (x[i] == 0) return x[i];
  return 0;
}

// 1 / s; a subnormal s has no finite inverse, and is 0 in 16 bits.
HWY_INLINE VF FiniteInverse(DF d, VF s) {
  const DI di;
  const VF inverse = hn::Div(hn::Set(d, 1.0f), s);
  const auto magnitude = hn::And(hn::BitCast(di, inverse), hn::Set(di, 0x7fffffff));
  return hn::IfThenElseZero(hn::RebindMask(d, hn::Lt(magnitude, hn::Set(di, 0x7f800000))), inverse);
}

// The numbers of the groups at x; false if a weight is not finite. `most` grows to the greatest magnitude.
template <const Block& kB, int S>
HWY_INLINE bool LegacyNumbers(const float* HWY_RESTRICT x, Numbers& n, VF& most) {
  constexpr Shape shape = ShapeOf(kB);
  const DF d;
  alignas(64) float high[kColumns];
  if constexpr (kB.codes[0].is_signed) {
    if (!FindMagnitudes<S>(x, high)) return false;
  } else {
    if (!FindEnds<S>(x, n.low, high)) return false;
  }
  for (int c = 0; c < kColumns; c += LanesF()) {
    const VF greatest = hn::Load(d, high + c);
    VF scale;
    if constexpr (kB.codes[0].is_signed) {
      most = hn::Max(most, greatest);
      scale = hn::Div(greatest, hn::Set(d, shape.high));
    } else {
      const VF least = hn::Load(d, n.low + c), below = hn::Neg(least);
      most = hn::Max(most, hn::Max(greatest, below));
      if constexpr (shape.affine) {
        scale = hn::Div(hn::Sub(greatest, least), hn::Set(d, shape.high));
        if (HWY_UNLIKELY(!hn::AllFalse(d, hn::Eq(least, hn::Zero(d)))))
          for (int j = c; j < c + LanesF(); ++j)
            if (n.low[j] == 0) n.low[j] = FirstZero<S>(x + j * S);
        StoreF16(d, hn::Load(d, n.low + c), n.offset + c);
      } else {
        VF extreme = hn::IfThenElse(hn::Gt(greatest, below), greatest, least);
        if (HWY_UNLIKELY(!hn::AllFalse(d, hn::Eq(greatest, below)))) {
          alignas(64) float fixed[kColumns];
          hn::Store(extreme, d, fixed);
          for (int j = 0; j < LanesF(); ++j)
            if (high[c + j] == -n.low[c + j]) fixed[j] = FirstExtreme<S>(x + (c + j) * S, high[c + j]);
          extreme = hn::Load(d, fixed);
        }
        scale = hn::Div(extreme, hn::Set(d, shape.low));
      }
    }
    hn::Store(FiniteInverse(d, scale), d, n.inverse + c);
    StoreF16(d, scale, n.scale + c);
  }
  return true;
}

template <const Block& kB>
HWY_INLINE VI LegacyCode(DF d, VF x, VF inverse, [[maybe_unused]] VF low) {
  constexpr Shape shape = ShapeOf(kB);
  if constexpr (kB.codes[0].is_signed) {  // halves go away from zero
    const VF v = hn::Mul(x, inverse);
    return Truncated(hn::Add(v, hn::CopySign(hn::Set(d, 0.49999997f), v)));
  } else {
    const VF v = shape.affine ? hn::Add(hn::Mul(hn::Sub(x, low), inverse), hn::Set(d, 0.5f))
                              : hn::Add(hn::Mul(x, inverse), hn::Set(d, 0.5f - shape.low));
    return hn::Min(Truncated(v), hn::Set(DI(), shape.codes - 1));
  }
}

// ---- Codes to bits

// Whether whole vectors of codes make whole bytes of the field.
template <Field kF>
constexpr bool TakesVectors() {
  constexpr int lanes = int(hn::MaxLanes(DF()));
  if (lanes < 8) return kF.kind == FieldKind::kNone;
  return kF.kind == FieldKind::kNone || IsBytes(kF) || IsBitStream(kF) ||
         (IsPlanes(kF) && kF.lanes % lanes == 0 && kF.slots * kF.bits == 8);
}

template <Field kF, int kCodes, int kSlot>
HWY_INLINE VI GatherVectors(const VI* v, int step) {
  const VI bits = kCodes <= 1 << kF.bits ? v[0] : hn::And(v[0], hn::Set(DI(), (1 << kF.bits) - 1));
  const VI here = hn::ShiftLeft<kSlot * kF.bits>(bits);
  if constexpr (kSlot + 1 == kF.slots) return here;
  else return hn::Or(here, GatherVectors<kF, kCodes, kSlot + 1>(v + step, step));
}

// The codes, below kCodes, of a block of kN weights in order, into one field.
template <Field kF, int kN, int kCodes>
HWY_INLINE void PackVectors(const VI* v, uint8_t* HWY_RESTRICT block) {
  constexpr int lanes = int(hn::MaxLanes(DF()));
  if constexpr (IsBytes(kF)) {
    for (int i = 0; i < kN; i += lanes) StoreBytes(v[i / lanes], block + kF.start / 8 + i);
  } else if constexpr (IsBitStream(kF)) {
    const DI di;
    for (int i = 0; i < kN; i += lanes)
      hn::StoreMaskBits(di, hn::TestBit(v[i / lanes], hn::Set(di, 1 << kF.up)), block + (kF.start + i) / 8);
  } else if constexpr (IsPlanes(kF)) {
    constexpr int vectors = kF.lanes / lanes;  // of one slot
    for (int chunk = 0; chunk < kN / (kF.lanes * kF.slots); ++chunk)
      for (int k = 0; k < vectors; ++k)
        StoreBytes(GatherVectors<kF, kCodes, 0>(v + chunk * kF.slots * vectors + k, vectors),
                   block + (kF.start + chunk * kF.chunk_step) / 8 + k * lanes);
  }
}

template <const Block& kB>
HWY_INLINE void EmitLegacy(const float* HWY_RESTRICT x, const Numbers& n, uint8_t* HWY_RESTRICT out) {
  constexpr int S = ShapeOf(kB).group, lanes = int(hn::MaxLanes(DF()));
  const DF d;
  for (int j = 0; j < kColumns; ++j, x += S, out += kB.bytes) {
    const VF inverse = hn::Set(d, n.inverse[j]), low = hn::Set(d, ShapeOf(kB).affine ? n.low[j] : 0.0f);
    PrefetchGroup<S, kColumns * S>(x);
    if constexpr (TakesVectors<kB.codes[0]>() && TakesVectors<kB.codes[1]>()) {
      VI codes[S / lanes];
#pragma GCC unroll 4
      for (int i = 0; i < S / lanes; ++i) codes[i] = LegacyCode<kB>(d, hn::LoadU(d, x + i * lanes), inverse, low);
      PackVectors<kB.codes[0], S, ShapeOf(kB).codes>(codes, out);
      PackVectors<kB.codes[1], S, ShapeOf(kB).codes>(codes, out);
    } else {
      alignas(64) uint8_t codes[S];
      for (int i = 0; i < S; i += lanes) StoreBytes(LegacyCode<kB>(d, hn::LoadU(d, x + i), inverse, low), codes + i);
      memset(out, 0, size_t(kB.bytes));
      PackCodes<kB.codes[0], S>(codes, out);
      PackCodes<kB.codes[1], S>(codes, out);
    }
    memcpy(out + kB.scale.byte, n.scale + j, 2);
    if constexpr (ShapeOf(kB).affine) memcpy(out + kB.offset.byte, n.offset + j, 2);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_ROUND_LEGACY_INL_H_
