// The vocabulary of the panel kernels, on Highway: lines of 64 codes, and 16 sums or scales, in as many registers as
// the target needs (1 for AVX-512, 2 for AVX2, 4 for 128 bits). panel_plain-inl.h has the same for targets without
// shuffles.
#if defined(EDGEQUANT_PANEL_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_PANEL_LINES_INL_H_
#undef EDGEQUANT_PANEL_LINES_INL_H_
#else
#define EDGEQUANT_PANEL_LINES_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstring>
#include <type_traits>

#include "format/panel.h"
#include "kernels/cpu/compat.h"
#include "kernels/cpu/targets.h"

#if HWY_ARCH_X86
#include <immintrin.h>
#elif HWY_ARCH_ARM_A64
#include <arm_neon.h>
#endif

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// N values that the compiler keeps in registers: g++ 12 gives up on arrays of vectors and on more than two dozen
// accumulators, members of a nested struct it takes apart at once.
template <class V, int N>
struct Regs {
  V head;
  Regs<V, N - 1> tail;
  template <int i>
  HWY_INLINE V& At() {
    if constexpr (i == 0) return head;
    else return tail.template At<i - 1>();
  }
  template <int i>
  HWY_INLINE const V& At() const {
    if constexpr (i == 0) return head;
    else return tail.template At<i - 1>();
  }
};
template <class V>
struct Regs<V, 0> {};

// f(constant) for the unit that products of bytes use.
template <class F>
HWY_INLINE auto WithDotUnit(const F& f) {
#if HWY_ARCH_ARM_A64
  const DotUnit unit = DotUnitInUse();
  if (unit == DotUnit::kMatrices) return f(std::integral_constant<DotUnit, DotUnit::kMatrices>());
  if (unit == DotUnit::kFours) return f(std::integral_constant<DotUnit, DotUnit::kFours>());
#endif
  return f(std::integral_constant<DotUnit, DotUnit::kNone>());
}

// f(integral_constant 0) ... f(integral_constant N-1), unrolled by the front end.
template <int N, int i = 0, class F>
HWY_INLINE void For(const F& f) {
  if constexpr (i < N) {
    f(std::integral_constant<int, i>());
    For<N, i + 1>(f);
  }
}

#if HWY_TARGET == HWY_SCALAR
#define EDGEQUANT_PANEL_PLAIN 1
#else
#define EDGEQUANT_PANEL_PLAIN 0

constexpr int kLanes = HWY_MIN(16, int(hn::MaxLanes(hn::ScalableTag<int32_t>())));
constexpr int kParts = 16 / kLanes;
using D8 = hn::CappedTag<uint8_t, 4 * kLanes>;
using DS8 = hn::CappedTag<int8_t, 4 * kLanes>;
using D16 = hn::CappedTag<uint16_t, 2 * kLanes>;
using DS16 = hn::CappedTag<int16_t, 2 * kLanes>;
using D32 = hn::CappedTag<int32_t, kLanes>;
using DF = hn::CappedTag<float, kLanes>;
using V8 = hn::Vec<D8>;
using V32 = hn::Vec<D32>;
using Line = Regs<V8, kParts>;
using Ints = Regs<V32, kParts>;
using Floats = Regs<hn::Vec<DF>, kParts>;

// True where the dot instruction takes unsigned times signed bytes of the full range; elsewhere both are signed.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
constexpr bool kUnsignedDot = true;
#else
constexpr bool kUnsignedDot = false;
#endif

template <class R, class F>  // R of f(part) for all parts
HWY_INLINE R Parts(const F& f) {
  R r;
  For<kParts>([&](auto i) EDGEQUANT_UNROLLED { r.template At<i>() = f(i); });
  return r;
}

// ---- Lines of codes

HWY_INLINE Line LoadLine(const void* p) {
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED {
    V8 v = hn::Load(D8(), static_cast<const uint8_t*>(p) + i * 4 * kLanes);
    EDGEQUANT_PIN(v);
    return v;
  });
}
HWY_INLINE void StoreLine(const Line& v, int8_t* p) {
  For<kParts>([&](auto i)
                  EDGEQUANT_UNROLLED { hn::Store(hn::BitCast(DS8(), v.template At<i>()), DS8(), p + i * 4 * kLanes); });
}

template <int from, int to>  // neighbours' bits come along
HWY_INLINE V8 MoveBits(V8 v) {
  const D16 d16;
  if constexpr (from > to) return hn::BitCast(D8(), hn::ShiftRight<from - to>(hn::BitCast(d16, v)));
  else if constexpr (from < to) return hn::BitCast(D8(), hn::ShiftLeft<to - from>(hn::BitCast(d16, v)));
  else return v;
}
template <int by>  // all bits but the lower `by` of each byte; above them lie others'
HWY_INLINE Line Down(const Line& v) {
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED { return MoveBits<by, 0>(v.template At<i>()); });
}
// Bits [from, from + width) of each byte, moved to bit `to`.
template <int width, int from, int to>
HWY_INLINE Line BitsOf(const Line& v) {
  if constexpr (width == 8) return v;
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::And(MoveBits<from, to>(v.template At<i>()), hn::Set(D8(), uint8_t(((1 << width) - 1) << to)));
  });
}
template <int width, int from, int to>  // the same, OR-ed to `with`
HWY_INLINE Line WithBitsOf(const Line& with, const Line& v) {
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::OrAnd(with.template At<i>(), MoveBits<from, to>(v.template At<i>()),
                     hn::Set(D8(), uint8_t(((1 << width) - 1) << to)));
  });
}
HWY_INLINE Line Twice(const Line& v) {  // of each byte, without its top bit
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED { return hn::Add(v.template At<i>(), v.template At<i>()); });
}
template <int kFirst>  // bytes kFirst, kFirst, kFirst + 1, kFirst + 1 of every four
HWY_INLINE Line TwicePairs(const Line& v) {
  constexpr uint8_t f = kFirst, g = kFirst + 1;
  alignas(16) static constexpr uint8_t kFrom[16] = {f,     f,     g,     g,     f + 4,  f + 4,  g + 4,  g + 4,
                                                    f + 8, f + 8, g + 8, g + 8, f + 12, f + 12, g + 12, g + 12};
  const V8 from = hn::LoadDup128(D8(), kFrom);
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED { return hn::TableLookupBytes(v.template At<i>(), from); });
}
HWY_INLINE Line FlipTops(const Line& v) {
  return Parts<Line>([&](auto i)
                         EDGEQUANT_UNROLLED { return hn::Xor(v.template At<i>(), hn::Set(D8(), uint8_t{128})); });
}
HWY_INLINE Line Minus(const Line& v, int zero) {
  return Parts<Line>([&](auto i)
                         EDGEQUANT_UNROLLED { return hn::Sub(v.template At<i>(), hn::Set(D8(), uint8_t(zero))); });
}

// A table of 16 bytes, and its entries number `codes`.
struct Table16 {
  V8 v;
};
HWY_INLINE Table16 LoadTable(const int8_t* values) {
  return {hn::LoadDup128(D8(), reinterpret_cast<const uint8_t*>(values))};
}
HWY_INLINE Table16 FlipTops(const Table16& t) { return {hn::Xor(t.v, hn::Set(D8(), uint8_t{128}))}; }
HWY_INLINE Line LookUp(const Table16& t, const Line& codes) {
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED { return hn::TableLookupBytes(t.v, codes.template At<i>()); });
}

// ---- Dot products: lane r of `sum` gains the products of bytes 4r .. 4r+3

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
// In assembly, as g++ 12 spills accumulators when the intrinsic is used.
template <DotUnit>
HWY_INLINE V32 DotParts(V32 sum, V8 u, V8 s) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(u.raw), "v"(s.raw));
  return sum;
}
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3  // u below 128: no pair of products saturates
#if HWY_TARGET <= HWY_AVX3
template <DotUnit>
HWY_INLINE V32 DotSmall(V32 sum, V8 u, V8 s) {
  return hn::Add(sum, V32{_mm512_madd_epi16(_mm512_maddubs_epi16(u.raw, s.raw), _mm512_set1_epi16(1))});
}
#elif HWY_TARGET <= HWY_AVX2
template <DotUnit>
HWY_INLINE V32 DotSmall(V32 sum, V8 u, V8 s) {
  return hn::Add(sum, V32{_mm256_madd_epi16(_mm256_maddubs_epi16(u.raw, s.raw), _mm256_set1_epi16(1))});
}
#else
template <DotUnit>
HWY_INLINE V32 DotSmall(V32 sum, V8 u, V8 s) {
  return hn::Add(sum, V32{_mm_madd_epi16(_mm_maddubs_epi16(u.raw, s.raw), _mm_set1_epi16(1))});
}
#endif
// Both signed, s not -128: |w| times s with the sign of w.
template <DotUnit>
HWY_INLINE V32 DotParts(V32 sum, V8 w, V8 s) {
  const DS8 d;
  const auto ws = hn::BitCast(d, w), ss = hn::BitCast(d, s);
  const auto with_sign = hn::IfThenElse(hn::Lt(ws, hn::Zero(d)), hn::Neg(ss), ss);
  return DotSmall<DotUnit::kNone>(sum, hn::BitCast(D8(), hn::Abs(ws)), hn::BitCast(D8(), with_sign));
}
#elif HWY_ARCH_ARM_A64
// In assembly, which needs no compiler flags, so that the processor decides at run time. The assembler is told of more
// than the compiler uses, as it forgets what it was told before.
#undef EDGEQUANT_DOT_ASM
#if defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)
#define EDGEQUANT_DOT_ASM
#else
#define EDGEQUANT_DOT_ASM ".arch armv8.6-a+crypto+sve2\n\t"
#endif
template <DotUnit kDot>
HWY_INLINE V32 DotParts(V32 sum, V8 a, V8 b) {
  if constexpr (kDot != DotUnit::kNone) {
    asm(EDGEQUANT_DOT_ASM "sdot %0.4s, %1.16b, %2.16b" : "+w"(sum.raw) : "w"(a.raw), "w"(b.raw));
    return sum;
  } else {  // sums of two products are below 2^15, as b is not -128
    const auto as = hn::BitCast(DS8(), a).raw, bs = hn::BitCast(DS8(), b).raw;
    const auto low = vmull_s8(vget_low_s8(as), vget_low_s8(bs));
    return V32(vpadalq_s16(sum.raw, vpaddq_s16(low, vmull_high_s8(as, bs))));
  }
}
#else  // signed bytes by 16-bit multiplies
template <DotUnit>
HWY_INLINE V32 DotParts(V32 sum, V8 a, V8 b) {
  const DS16 d;
  const D32 d32;
  const auto a16 = hn::BitCast(d, a), b16 = hn::BitCast(d, b);
  const auto even = hn::Mul(hn::ShiftRight<8>(hn::ShiftLeft<8>(a16)), hn::ShiftRight<8>(hn::ShiftLeft<8>(b16)));
  const auto odd = hn::Mul(hn::ShiftRight<8>(a16), hn::ShiftRight<8>(b16));
  const auto pairs = hn::BitCast(d32, hn::Add(even, odd));  // below 2^15 as activations are not -128
  return hn::Add(sum, hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)), hn::ShiftRight<16>(pairs)));
}
#endif
#if !(HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL && HWY_TARGET <= HWY_SSSE3)
template <DotUnit kDot>
HWY_INLINE V32 DotSmall(V32 sum, V8 u, V8 s) { return DotParts<kDot>(sum, u, s); }
#endif

// 4 bytes of activations, in all lanes.
using Quad = V8;
HWY_INLINE Quad LoadQuad(const void* p) {
  int32_t bits;
  memcpy(&bits, p, 4);
  return hn::BitCast(D8(), hn::Set(D32(), bits));
}
// Codes times signed activations; kSmall: all codes are below 128. Else codes are unsigned if kUnsignedDot.
template <bool kSmall, DotUnit kDot = DotUnit::kNone>
HWY_INLINE Ints DotCodes(const Ints& sum, const Line& codes, Quad x) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED {
    if constexpr (kSmall) return DotSmall<kDot>(sum.template At<i>(), codes.template At<i>(), x);
    else return DotParts<kDot>(sum.template At<i>(), codes.template At<i>(), x);
  });
}

// ---- Sums and scales

HWY_INLINE Ints SetInts(int32_t v) {
  return Parts<Ints>([&](auto) EDGEQUANT_UNROLLED { return hn::Set(D32(), v); });
}
HWY_INLINE Ints LoadInts(const int32_t* p) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED { return hn::Load(D32(), p + i * kLanes); });
}
HWY_INLINE void StoreInts(const Ints& v, int32_t* p) {
  For<kParts>([&](auto i) EDGEQUANT_UNROLLED { hn::Store(v.template At<i>(), D32(), p + i * kLanes); });
}
// Lanes of two 16-bit numbers, `low` and `high`.
HWY_INLINE Ints JoinPairs(const Ints& low, const Ints& high) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::Or(hn::And(low.template At<i>(), hn::Set(D32(), 0xffff)), hn::ShiftLeft<16>(high.template At<i>()));
  });
}
// Both products of such pairs.
HWY_INLINE Ints DotPairs(const Ints& sum, const Ints& pairs, int32_t pair) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED {
    const V32 a = pairs.template At<i>(), b = hn::Set(D32(), pair);
    V32 s = sum.template At<i>();
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
    asm("vpdpwssd %2, %1, %0" : "+v"(s.raw) : "v"(a.raw), "v"(b.raw));
    return s;
#else
    s = hn::Add(s, hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b)));
    return hn::Add(s, hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(a)), hn::ShiftRight<16>(hn::ShiftLeft<16>(b))));
#endif
  });
}
// The low bytes of the products of the 4 bytes of each lane with a number that the lane of `pairs` holds twice.
HWY_INLINE Line TimesBytes(const Line& v, const Ints& pairs) {
  const D16 d;
  return Parts<Line>([&](auto i) EDGEQUANT_UNROLLED {
    const auto a = hn::BitCast(d, v.template At<i>()), b = hn::BitCast(d, pairs.template At<i>());
    const auto low = hn::And(hn::Mul(a, b), hn::Set(d, uint16_t{0x00ff}));
    return hn::BitCast(D8(), hn::Or(low, hn::Mul(hn::And(a, hn::Set(d, uint16_t{0xff00})), b)));
  });
}
HWY_INLINE Ints TimesPlus(const Ints& a, const Ints& b, const Ints& c) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::Add(hn::Mul(a.template At<i>(), b.template At<i>()), c.template At<i>());
  });
}
HWY_INLINE Ints Plus(const Ints& a, const Ints& b) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED { return hn::Add(a.template At<i>(), b.template At<i>()); });
}
HWY_INLINE Ints Magnitude(const Ints& v) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED { return hn::Abs(v.template At<i>()); });
}
template <class V>
HWY_INLINE void KeepPart([[maybe_unused]] V& v) { EDGEQUANT_PIN(v); }
HWY_INLINE void Keep(Ints& v) {  // in registers
  For<kParts>([&](auto i) EDGEQUANT_UNROLLED { KeepPart(v.template At<i>()); });
}
HWY_INLINE void Keep(Line& v) {
  For<kParts>([&](auto i) EDGEQUANT_UNROLLED { KeepPart(v.template At<i>()); });
}

HWY_INLINE Floats ZeroFloats() {
  return Parts<Floats>([&](auto) EDGEQUANT_UNROLLED { return hn::Zero(DF()); });
}
HWY_INLINE Floats LoadFloats(const float* p) {
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED { return hn::Load(DF(), p + i * kLanes); });
}
HWY_INLINE void StoreFloats(const Floats& v, float* p) {
  For<kParts>([&](auto i) EDGEQUANT_UNROLLED { hn::Store(v.template At<i>(), DF(), p + i * kLanes); });
}
HWY_INLINE Floats ToFloats(const Ints& v) {
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED { return hn::ConvertTo(DF(), v.template At<i>()); });
}
HWY_INLINE Floats Times(const Floats& a, const Floats& b) {
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED { return hn::Mul(a.template At<i>(), b.template At<i>()); });
}
HWY_INLINE Floats Times(const Floats& a, float b) {
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED { return hn::Mul(a.template At<i>(), hn::Set(DF(), b)); });
}
HWY_INLINE Floats TimesPlus(const Floats& a, const Floats& b, const Floats& c) {
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::MulAdd(a.template At<i>(), b.template At<i>(), c.template At<i>());
  });
}
HWY_INLINE Floats TimesPlus(const Floats& a, float b, const Floats& c) {
  return Parts<Floats>(
      [&](auto i) EDGEQUANT_UNROLLED { return hn::MulAdd(a.template At<i>(), hn::Set(DF(), b), c.template At<i>()); });
}

// 16 stored scales.
HWY_INLINE Floats FromF16(const uint8_t* p) {
  using DH = hn::CappedTag<hwy::float16_t, kLanes>;
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::PromoteTo(DF(), hn::Load(DH(), reinterpret_cast<const hwy::float16_t*>(p) + i * kLanes));
  });
}
HWY_INLINE Floats FromBF16(const uint8_t* p) {
  using DH = hn::CappedTag<uint16_t, kLanes>;
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED {
    const auto bits = hn::PromoteTo(D32(), hn::Load(DH(), reinterpret_cast<const uint16_t*>(p) + i * kLanes));
    return hn::BitCast(DF(), hn::ShiftLeft<16>(bits));
  });
}
HWY_INLINE Floats FromF32(const uint8_t* p) { return LoadFloats(reinterpret_cast<const float*>(p)); }
HWY_INLINE Ints LoadSignedBytes(const uint8_t* p) {
  using DQ = hn::CappedTag<int8_t, kLanes>;
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::PromoteTo(D32(), hn::Load(DQ(), reinterpret_cast<const int8_t*>(p) + i * kLanes));
  });
}
HWY_INLINE Ints LoadBytes(const uint8_t* p) {
  using DQ = hn::CappedTag<uint8_t, kLanes>;
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED { return hn::PromoteTo(D32(), hn::Load(DQ(), p + i * kLanes)); });
}
HWY_INLINE Ints LowNibble(const Ints& v) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED { return hn::And(v.template At<i>(), hn::Set(D32(), 15)); });
}
HWY_INLINE Ints HighNibble(const Ints& v) {
  return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED { return hn::ShiftRight<4>(v.template At<i>()); });
}
HWY_INLINE Floats FromE8M0(const uint8_t* p) {  // 2^(e - 128)
  const D32 d;
  const Ints e = LoadBytes(p);
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED {
    const auto v = e.template At<i>();
    const auto denormal = hn::IfThenElse(hn::Eq(v, hn::Zero(d)), hn::Set(d, 0x00200000), hn::Set(d, 0x00400000));
    return hn::BitCast(DF(), hn::Max(hn::ShiftLeft<23>(hn::Sub(v, hn::Set(d, 1))), denormal));
  });
}
HWY_INLINE Floats FromUE4M3(const uint8_t* p) {  // / 256; the top bit is 0: seven bits are an f16 of a smaller exponent
  using DQ = hn::CappedTag<uint8_t, kLanes>;
  using DU = hn::CappedTag<uint16_t, kLanes>;
  using DH = hn::CappedTag<hwy::float16_t, kLanes>;
  return Parts<Floats>([&](auto i) EDGEQUANT_UNROLLED {
    return hn::PromoteTo(DF(),
                         hn::BitCast(DH(), hn::ShiftLeft<7>(hn::PromoteTo(DU(), hn::Load(DQ(), p + i * kLanes)))));
  });
}
#endif  // HWY_TARGET

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#if EDGEQUANT_PANEL_PLAIN
#include "kernels/cpu/panel_plain-inl.h"
#endif
#undef EDGEQUANT_PANEL_PLAIN

#endif  // EDGEQUANT_PANEL_LINES_INL_H_
