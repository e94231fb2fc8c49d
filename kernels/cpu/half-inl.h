// f16 and bf16 to float and back, rounded to nearest even; NaN stays NaN, subnormals are kept.
#if defined(EDGEQUANT_HALF_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_HALF_INL_H_
#undef EDGEQUANT_HALF_INL_H_
#else
#define EDGEQUANT_HALF_INL_H_
#endif

#include <hwy/highway.h>

// Highway's replacement for missing f16 instructions knows neither infinity nor NaN: those targets use the one below.
#undef EDGEQUANT_NATIVE_F16
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)) || HWY_ARCH_ARM_A64
#define EDGEQUANT_NATIVE_F16 1
#else
#define EDGEQUANT_NATIVE_F16 0
#endif

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR
template <class DF, class V16 = hn::Vec<hn::Rebind<uint16_t, DF>>>
HWY_INLINE hn::Vec<DF> PromoteBF16(DF df, V16 bits) {
  const hn::RebindToUnsigned<DF> du;
  return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

template <class DF, class V16 = hn::Vec<hn::Rebind<uint16_t, DF>>>
HWY_INLINE hn::Vec<DF> PromoteF16(DF df, V16 bits) {
#if EDGEQUANT_NATIVE_F16
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(df, hn::BitCast(dh, bits));
#else
  const hn::RebindToUnsigned<DF> du;
  const auto h = hn::PromoteTo(du, bits);
  const auto magnitude = hn::And(h, hn::Set(du, 0x7fffu)), sign = hn::ShiftLeft<16>(hn::Xor(h, magnitude));
  // * 2^112 moves the exponent, exactly, and makes subnormals normal; the largest exponent stands for infinity and NaN.
  const auto scaled = hn::Mul(hn::BitCast(df, hn::ShiftLeft<13>(magnitude)), hn::Set(df, 5.192296858534828e33f));
  const hn::RebindToSigned<DF> di;
  const auto special = hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, 0x7bff));
  const auto top = hn::IfThenElseZero(hn::RebindMask(du, special), hn::Set(du, 0x7f800000u));
  return hn::BitCast(df, hn::Or(hn::Or(hn::BitCast(du, scaled), top), sign));
#endif
}

template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE hn::Vec<hn::Rebind<uint16_t, DF>> DemoteBF16(DF, VF v) {
  const hn::RebindToUnsigned<DF> du;
  const hn::RebindToSigned<DF> di;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu)));
  const auto magnitude = hn::BitCast(di, hn::And(bits, hn::Set(du, 0x7fffffffu)));
  const auto nan = hn::RebindMask(du, hn::Gt(magnitude, hn::Set(di, 0x7f800000)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000u));
  const auto top = hn::ShiftRight<16>(hn::IfThenElse(nan, quiet, rounded));
  return hn::DemoteTo(hn::Rebind<uint16_t, DF>(), hn::BitCast(di, top));
}

template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE hn::Vec<hn::Rebind<uint16_t, DF>> DemoteF16(DF df, VF v) {
  const hn::Rebind<uint16_t, DF> d16;
#if EDGEQUANT_NATIVE_F16
  (void)df;
  return hn::BitCast(d16, hn::DemoteTo(hn::Rebind<hwy::float16_t, DF>(), v));
#else
  const hn::RebindToUnsigned<DF> du;
  const hn::RebindToSigned<DF> di;
  const auto bits = hn::BitCast(du, v);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu)), sign = hn::Xor(bits, magnitude);
  const auto m = hn::BitCast(di, magnitude);
  // Normal results: move the exponent by 112 and round at bit 13. Below 2^-14, adding 1/2 rounds at the last place.
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1u));
  const auto normal =
      hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, hn::Set(du, 0x38000000u)), hn::Add(odd, hn::Set(du, 0xfffu))));
  const auto half = hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 0.5f));
  const auto subnormal = hn::Sub(hn::BitCast(du, half), hn::Set(du, 0x3f000000u));
  auto h = hn::IfThenElse(hn::RebindMask(du, hn::Lt(m, hn::Set(di, 0x38800000))), subnormal, normal);
  h = hn::IfThenElse(hn::RebindMask(du, hn::Gt(m, hn::Set(di, 0x477fefff))), hn::Set(du, 0x7c00u), h);
  h = hn::IfThenElse(hn::RebindMask(du, hn::Gt(m, hn::Set(di, 0x7f800000))), hn::Set(du, 0x7e00u), h);
  return hn::DemoteTo(d16, hn::BitCast(di, hn::Or(h, hn::ShiftRight<16>(sign))));
#endif
}
#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_HALF_INL_H_
