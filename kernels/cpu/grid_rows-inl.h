// The rows that the codes of grid blocks choose, laid out one after another as signed bytes.
#if defined(EDGEQUANT_GRID_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_ROWS_INL_H_
#undef EDGEQUANT_GRID_ROWS_INL_H_
#else
#define EDGEQUANT_GRID_ROWS_INL_H_
#endif

#include "kernels/cpu/byte_maps.h"
#include "kernels/cpu/compat.h"
#include "kernels/cpu/field-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// body(first, low, high) for 16 codes at a time, from their lower eight and their upper bits.
template <const Block& kB, class Body>
HWY_INLINE void ReadGridCodes(const uint8_t* HWY_RESTRICT block, const Body& body) {
  static_assert(kB.codes[0].bits <= 8 && kB.codes[0].up == 0 && kB.n % (16 * kB.map.dim) == 0);
  ForEach<kB.n / kB.map.dim / 16, 16>([&](auto first) EDGEQUANT_UNROLLED {
    constexpr int at = decltype(first)::value;
    const auto low = ReadField<kB.codes[0], at, 16, 16, kB.bytes>(block);
    if constexpr (kB.codes[1].kind == FieldKind::kNone) {
      body(at, low, hn::Zero(ByteTag<16>()));
    } else {
      static_assert(kB.codes[1].up == 8);
      constexpr Field unshifted = [] {
        Field f = kB.codes[1];
        f.up = 0;
        return f;
      }();
      body(at, low, ReadField<unshifted, at, 16, 16, kB.bytes>(block));
    }
  });
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
// 64 codes at a time: the grid's 16-bit rows are two planes of bytes, small enough to stay in the first-level cache
// beside the output, and looked up in registers.
template <int kRows>  // codes have log2(kRows) bits; above[k] has bit k + 7 of each
HWY_INLINE __m512i PickBytes(const uint8_t* HWY_RESTRICT plane, __m512i code, const __mmask64* above) {
  if constexpr (kRows == 128) {
    return _mm512_permutex2var_epi8(_mm512_load_si512(plane), code, _mm512_load_si512(plane + 64));
  } else {
    constexpr int bit = kRows == 256 ? 0 : kRows == 512 ? 1 : kRows == 1024 ? 2 : 3;
    static_assert(kRows == 256 << bit);
    return _mm512_mask_blend_epi8(above[bit], PickBytes<kRows / 2>(plane, code, above),
                                  PickBytes<kRows / 2>(plane + kRows / 2, code, above));
  }
}

// Blocks [0, count) of at most kMost, (count, kB.n).
template <const Block& kB, int kMost>
HWY_INLINE void ReadRows(const uint8_t* HWY_RESTRICT src, int count, int8_t* HWY_RESTRICT rows) {
  constexpr int dim = kB.map.dim, codes = kB.n / dim;
  static_assert(kMost * codes % 64 == 0 && (dim == 8 || dim == 4));
  alignas(64) uint8_t low[kMost * codes] = {}, high[kMost * codes] = {};
  for (int b = 0; b < count; ++b) {
    ReadGridCodes<kB>(src + b * kB.bytes, [&](int at, auto lower, auto upper) EDGEQUANT_UNROLLED {
      hn::Store(lower, ByteTag<16>(), low + b * codes + at);
      hn::Store(upper, ByteTag<16>(), high + b * codes + at);
    });
  }
  static constexpr auto planes = GridPlanesOf<kB>();
  const __m512i values = _mm512_load_si512(planes.values), shifts = _mm512_load_si512(planes.shifts);
  for (int c = 0; c < count * codes; c += 64) {
    const __m512i code = _mm512_load_si512(low + c), upper = _mm512_load_si512(high + c);
    __mmask64 above[4] = {_mm512_movepi8_mask(code)};
    for (int k = 1; k < 4; ++k) above[k] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(char(1 << (k - 1))));
    const __m512i first = PickBytes<planes.kRows>(planes.low, code, above);
    const __m512i second = PickBytes<planes.kRows>(planes.high, code, above);
    __m512i from = _mm512_load_si512(planes.from);
    for (int k = 0; k < dim; ++k) {  // the values of 64 / dim codes
      const __m512i packed = _mm512_permutex2var_epi8(first, from, second);
      const __m512i index = _mm512_multishift_epi64_epi8(shifts, packed);
      _mm512_store_si512(rows + (c * dim + k * 64), _mm512_permutexvar_epi8(index, values));
      from = _mm512_add_epi8(from, _mm512_set1_epi8(64 / dim));
    }
  }
}
#else
template <const Block& kB, int kMost>
HWY_INLINE void ReadRows(const uint8_t* HWY_RESTRICT src, int count, int8_t* HWY_RESTRICT rows) {
  constexpr int dim = kB.map.dim, codes = kB.n / dim;
  const int8_t* grid = kGridRows<kB>.values;
  for (int b = 0; b < count; ++b) {
    const ByteTag<16> d;
    const hn::Repartition<uint16_t, decltype(d)> d16;
    alignas(64) uint16_t code[codes];
    ReadGridCodes<kB>(src + b * kB.bytes, [&](int at, auto lower, auto upper) EDGEQUANT_UNROLLED {
      hn::Store(hn::BitCast(d16, hn::InterleaveLower(d, lower, upper)), d16, code + at);
      hn::Store(hn::BitCast(d16, hn::InterleaveUpper(d, lower, upper)), d16, code + at + 8);
    });
    for (int c = 0; c < codes; ++c) memcpy(rows + b * kB.n + c * dim, grid + code[c] * dim, dim);
  }
}
#endif
#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_GRID_ROWS_INL_H_
