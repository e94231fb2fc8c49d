// Codes of groups as the reference encoders of the ecosystems round them, from scales and shifts.
#if defined(EDGEQUANT_SCHEME_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_CODES_INL_H_
#undef EDGEQUANT_SCHEME_CODES_INL_H_
#else
#define EDGEQUANT_SCHEME_CODES_INL_H_
#endif

#include <math.h>
#include <string.h>

#include <type_traits>

#include <hwy/cache_control.h>

#include "kernels/cpu/scheme_rule-inl.h"
#include "kernels/cpu/scheme_values-inl.h"

// Whether numbers that are put in fewer bits, four vectors at a time, end at the least and the greatest.
#undef EDGEQUANT_BYTES_SATURATE
#define EDGEQUANT_BYTES_SATURATE (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3)

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

enum class Division { kProduct, kQuotient, kFusedQuotient };

// With fused multiplications, what a product with the inverse leaves over leads to the quotient, faster than a
// division. Once is enough for all whole numbers and small floats: none of the few quotients that come near enough to a
// limit between two codes falls on its other side (scheme_rule_test); but zeros lose their sign, which the product has.
// Twice gives the correctly rounded quotient, always.
struct SignedQuotient { VF value, sign; };
template <class V, Division kDivision>
HWY_INLINE SignedQuotient Quotient(VF x, VF by, VF inverse) {
  if constexpr (kDivision == Division::kProduct) {
    const VF u = hn::Mul(x, inverse);
    return {u, u};
  } else if constexpr (kDivision == Division::kQuotient) {
    const VF u = hn::Div(x, by);
    return {u, u};
  } else {
    const VF first = hn::Mul(x, inverse), near = hn::MulAdd(hn::NegMulAdd(first, by, x), inverse, first);
    if constexpr (V::kRounded) return {near, first};
    else return {hn::MulAdd(hn::NegMulAdd(near, by, x), inverse, near), first};
  }
}

// Whole numbers up to `last` as codes, what is below zero being 0. A large sum ends in the whole number.
template <Rounding kRounding>
HWY_INLINE VI WholeCode(DF d, VF u, VF last) {
#if EDGEQUANT_BYTES_SATURATE
  if constexpr (kRounding == Rounding::kHalfEven) return VI{_mm512_cvtps_epi32(hn::Min(u, last).raw)};
  constexpr float half = kRounding == Rounding::kHalfAway ? 0.49999997f : 0.5f;
  return VI{_mm512_cvttps_epi32(hn::Min(hn::Add(u, hn::Set(d, half)), last).raw)};
#else
  const DI di;
  u = hn::Max(u, hn::Zero(d));
  if constexpr (kRounding == Rounding::kHalfAway) u = hn::Trunc(hn::Add(u, hn::Set(d, 0.49999997f)));
  else if constexpr (kRounding == Rounding::kHalfUp) u = hn::Trunc(hn::Add(u, hn::Set(d, 0.5f)));
  return hn::And(hn::BitCast(di, hn::Add(hn::Min(u, last), hn::Set(d, 8388608.0f))), hn::Set(di, 255));
#endif
}

// Codes plus `offset` as bytes, from one vector and from four.
HWY_INLINE void StoreBytes(VI v, uint8_t offset, uint8_t* HWY_RESTRICT out) {
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  v = hn::And(hn::Add(hn::Max(v, hn::Zero(di)), hn::Set(di, offset)), hn::Set(di, 255));
  hn::StoreU(hn::DemoteTo(d8, v), d8, out);
}
HWY_INLINE void StoreBytes(VI a, VI b, VI c, VI e, uint8_t offset, uint8_t* HWY_RESTRICT out) {
#if EDGEQUANT_BYTES_SATURATE
  const hn::CappedTag<uint8_t, 64> d8;
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a.raw, b.raw), _mm512_packs_epi32(c.raw, e.raw));
  const hn::Vec<decltype(d8)> in_order{_mm512_permutexvar_epi32(order, bytes)};
  hn::StoreU(hn::Add(in_order, hn::Set(d8, offset)), d8, out);
#elif HWY_TARGET == HWY_SCALAR
  StoreBytes(a, offset, out);
  StoreBytes(b, offset, out + 1);
  StoreBytes(c, offset, out + 2);
  StoreBytes(e, offset, out + 3);
#else
  const hn::Repartition<int16_t, DI> d16;  // numbers are below 2^15: their upper halves are empty
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const size_t n = size_t(LanesF());
  const auto pair = [&](VI low, VI high) HWY_ATTR {
    return hn::DemoteTo(d8, hn::ConcatEven(d16, hn::BitCast(d16, high), hn::BitCast(d16, low)));
  };
  hn::StoreU(hn::Add(pair(a, b), hn::Set(d8, offset)), d8, out);
  hn::StoreU(hn::Add(pair(c, e), hn::Set(d8, offset)), d8, out + 2 * n);
#endif
}

// Codes of 4 bits from four vectors, two to a byte.
HWY_INLINE void StorePairs(VI a, VI b, VI c, VI e, uint8_t* HWY_RESTRICT out) {
#if EDGEQUANT_BYTES_SATURATE
  alignas(64) static constexpr uint16_t kOrder[32] = {0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27};
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a.raw, b.raw), _mm512_packs_epi32(c.raw, e.raw));
  const __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(0x1001));  // a word each: first + 16 * second
  const __m512i in_order = _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), _mm512_packus_epi16(pairs, pairs));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(in_order));
#else
  alignas(64) uint8_t bytes[4 * kColumns];
  StoreBytes(a, b, c, e, 0, bytes);
  for (size_t i = 0; i < 2 * size_t(LanesF()); ++i) out[i] = uint8_t(bytes[2 * i] | bytes[2 * i + 1] << 4);
#endif
}

#if EDGEQUANT_FLOAT8
// One byte of every number in four vectors.
template <int kByte>
struct OneOfFour {
  alignas(64) uint8_t from[64] = {};
  constexpr OneOfFour() {
    for (int k = 0; k < 64; ++k) from[k] = uint8_t(k % 32 / 16 * 64 + k % 16 * 4 + kByte);
  }
};
template <int kByte>
HWY_INLINE __m512i BytesOf(__m512i a, __m512i b, __m512i c, __m512i e) {
  alignas(64) static constexpr OneOfFour<kByte> kOrder;
  const __m512i order = _mm512_load_si512(kOrder.from);
  return _mm512_mask_blend_epi64(0xf0, _mm512_permutex2var_epi8(a, order, b), _mm512_permutex2var_epi8(c, order, e));
}
HWY_INLINE void StoreFloats(const Float8Codes& values, const SignedQuotient& a, const SignedQuotient& b,
                            const SignedQuotient& c, const SignedQuotient& e, uint8_t offset,
                            uint8_t* HWY_RESTRICT out) {
  const DI di;
  const auto sign = [&](const SignedQuotient& q) HWY_ATTR { return hn::BitCast(di, q.sign).raw; };
  const __m512i codes = BytesOf<0>(values.Steps(a.value), values.Steps(b.value), values.Steps(c.value),
                                   values.Steps(e.value));
  const __m512i signs = BytesOf<3>(sign(a), sign(b), sign(c), sign(e));
  const __m512i both = _mm512_ternarylogic_epi64(_mm512_set1_epi8(127), codes, signs, 0xca);
  _mm512_storeu_si512(out, _mm512_add_epi8(both, _mm512_set1_epi8(char(offset))));
}
#endif

// Bytes: stores end in order, so that one that waits for its line holds up all behind it.
constexpr size_t kOutAhead = 2048;
// Weights: into the second cache, for the first would be full of what is not needed yet.
HWY_INLINE void FetchSoon(const float* p) { __builtin_prefetch(p, 0, 2); }

enum class Origin { kPlus, kMinus, kBoth };  // what is not zero of `plus` and `minus`

template <class V, Division kDivision, Rounding kRounding, Origin kOrigin>
struct GroupCodes {
  V values;  // not a reference: bytes that are written could change what it refers to
  VF last;
  size_t ahead;  // meanwhile weights come from memory whose range will be looked for next: this far behind
  CodePlace out;

  struct Numbers { VF minus, plus, by, inverse; };
  static HWY_INLINE Numbers NumbersOf(const RuleColumns& r, size_t g) {
    const DF d;
    const bool none = kDivision == Division::kQuotient && r.inverse[g] == 0;
    const float by = none ? INFINITY : r.by[g];
    return {hn::Set(d, r.minus[g]), hn::Set(d, r.plus[g]), hn::Set(d, by), hn::Set(d, r.inverse[g])};
  }
  static HWY_INLINE SignedQuotient Over(const Numbers& g, VF v) {
    if constexpr (kOrigin != Origin::kPlus) v = hn::Sub(v, g.minus);
    return Quotient<V, kDivision>(v, g.by, g.inverse);
  }
  HWY_INLINE VI Code(const Numbers& g, VF v) const {
    const DF d;
    const SignedQuotient u = Over(g, v);
    if constexpr (V::kWhole && kOrigin == Origin::kMinus) return WholeCode<kRounding>(d, u.value, last);
    else if constexpr (V::kWhole) return WholeCode<kRounding>(d, hn::Add(u.value, g.plus), last);
    else if constexpr (V::kRounded) return values.Code(d, u.value, u.sign);
    else return values.Code(d, u.value);
  }
  // Four vectors, of kGroups groups.
  template <size_t kGroups>
  HWY_INLINE void Four(const Numbers* g, const float* HWY_RESTRICT x, uint8_t* HWY_RESTRICT codes) const {
    const DF d;
    const size_t lanes = size_t(LanesF());
    for (size_t i = 0; i < 4 * lanes; i += 16) FetchSoon(x + ahead + i);
    hwy::Prefetch(codes + kOutAhead);
    if constexpr (V::kBytes) {
      const auto over = [&](size_t k) HWY_ATTR { return Over(g[k * kGroups / 4], hn::LoadU(d, x + k * lanes)); };
      StoreFloats(values, over(0), over(1), over(2), over(3), out.offset, codes);
    } else {
      const auto code = [&](size_t k) HWY_ATTR { return Code(g[k * kGroups / 4], hn::LoadU(d, x + k * lanes)); };
      const VI a = code(0), b = code(1), c = code(2), e = code(3);
      if (out.pairs) StorePairs(a, b, c, e, codes);
      else StoreBytes(a, b, c, e, out.offset, codes);
    }
  }
  template <size_t kGroups>
  HWY_INLINE void Some(const float* HWY_RESTRICT x, size_t count, const RuleColumns& r) const {
    const size_t four = 4 * size_t(LanesF());
    uint8_t* HWY_RESTRICT codes = out.at;
    for (size_t g = 0; g < count; g += kGroups, x += four, codes += out.Bytes(four)) {
      Numbers numbers[kGroups];
      for (size_t k = 0; k < kGroups; ++k) numbers[k] = NumbersOf(r, g + k);
      Four<kGroups>(numbers, x, codes);
    }
  }
  HWY_INLINE void All(const float* HWY_RESTRICT x, size_t n, size_t count, const RuleColumns& r) const {
    const DF d;
    const size_t lanes = size_t(LanesF());
    if (n == 2 * lanes && count % 2 == 0) return Some<2>(x, count, r);
    if (n == lanes && count % 4 == 0) return Some<4>(x, count, r);
    uint8_t* HWY_RESTRICT codes = out.at;
    for (size_t g = 0; g < count; ++g, x += n, codes += out.Bytes(n)) {
      const Numbers numbers = NumbersOf(r, g);
      size_t i = 0;
      for (; i + 4 * lanes <= n; i += 4 * lanes) Four<1>(&numbers, x + i, codes + out.Bytes(i));
      for (; i + lanes <= n; i += lanes) StoreBytes(Code(numbers, hn::LoadU(d, x + i)), out.offset, codes + i);
      if (i < n) {
        alignas(64) float rest[kColumns] = {};
        alignas(64) uint8_t c[kColumns];
        memcpy(rest, x + i, (n - i) * sizeof(float));
        StoreBytes(Code(numbers, hn::Load(d, rest)), out.offset, c);
        memcpy(codes + i, c, n - i);
      }
    }
  }
};

// A power of two that is divided by has an exact inverse.
HWY_INLINE Division DivisionOf(const SchemeSearch& s, const RuleColumns& r) {
  const Scheme& f = *s.scheme;
  if (!f.divide) return Division::kProduct;
  if (!r.moderate) return Division::kQuotient;
  if (RuleOf(s) == Rule::kPowerOfTwo || (f.rounded_scale && s.scale_cell == Cell::kE8M0)) return Division::kProduct;
  return HWY_NATIVE_FMA ? Division::kFusedQuotient : Division::kQuotient;
}

template <class V, Division kDivision, Rounding kRounding>
HWY_INLINE void RuleCodes(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count,
                          const RuleColumns& r, size_t ahead, const CodePlace& codes) {
  const VF last = hn::Set(DF(), float(s.values->codes - 1));
  const auto with = [&](auto origin) HWY_ATTR {
    const GroupCodes<V, kDivision, kRounding, decltype(origin)::value> groups{values, last, ahead, codes};
    groups.All(x, n, count, r);
  };
  if (s.scheme->zeros != Zero::kMinimum) with(std::integral_constant<Origin, Origin::kPlus>());
  else if (s.scheme->zero == 0) with(std::integral_constant<Origin, Origin::kMinus>());
  else with(std::integral_constant<Origin, Origin::kBoth>());
}
template <class V, Rounding kRounding>
HWY_INLINE void RuleCodes(const V& values, const SchemeSearch& s, const float* x, size_t n, size_t count,
                          const RuleColumns& r, size_t ahead, const CodePlace& codes) {
  using enum Division;
  const auto with = [&](auto division) HWY_ATTR {
    RuleCodes<V, decltype(division)::value, kRounding>(values, s, x, n, count, r, ahead, codes);
  };
  switch (DivisionOf(s, r)) {
    case kProduct: return with(std::integral_constant<Division, kProduct>());
    case kQuotient: return with(std::integral_constant<Division, kQuotient>());
    case kFusedQuotient: return with(std::integral_constant<Division, kFusedQuotient>());
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_CODES_INL_H_
