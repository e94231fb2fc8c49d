// 4-bit floats with the instructions of AVX3_DL: errors of two scales from 16-bit fixed-point numbers, 32 to a vector,
// and the codes of 64 weights at once.
#if defined(EDGEQUANT_ROUND_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_ROUND_WORDS_INL_H_
#undef EDGEQUANT_ROUND_WORDS_INL_H_
#else
#define EDGEQUANT_ROUND_WORDS_INL_H_
#endif

#include <bit>

#include "kernels/cpu/round_numbers-inl.h"

#undef EDGEQUANT_ROUND_WORDS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
#define EDGEQUANT_ROUND_WORDS 1
#else
#define EDGEQUANT_ROUND_WORDS 0
#endif

#if EDGEQUANT_ROUND_WORDS
HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

constexpr int kWordBits = 10;  // of a fraction of half steps: 32 of them fit
constexpr float kWordOne = 1 << kWordBits;

// For each count of half steps from -64: its code, in both nibbles. For each from -32, not above the number: the value
// in words.
struct HalfStepTables {
  alignas(64) uint8_t code[128] = {};  // by the lowest 7 bits
  alignas(64) int16_t value[64] = {};  // by the lowest 6 bits
  constexpr HalfStepTables() {
    constexpr int kSteps[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    for (int k = 0; k < 64; ++k) {
      int c = 0;
      while (c < 7 && kSteps[c] + kSteps[c + 1] <= k) ++c;
      code[k] = uint8_t(c * 0x11);
      if (k < 32) value[k] = int16_t(2 * kSteps[c] << kWordBits), value[63 - k] = int16_t(-value[k]);
      if (k > 0) code[128 - k] = uint8_t((c ? c + 8 : 0) * 0x11);
    }
    code[64] = 0xff;
  }
};
inline constexpr HalfStepTables kHalfStepTables;

// Half a step under the UE4M3 codes below 16, from 8 on, and its inverse (0 for none): bits of floats, to which the
// power of two that each 8 codes make is added, or from which it is taken.
template <const Block& kB>
struct ScaleTable {
  alignas(64) int32_t half[16] = {}, inverse[16] = {};
  constexpr ScaleTable() {
    for (int code = 0; code < 16; ++code) {
      const float h = kB.map.values[1] / 2, scale = float(code) / 512;
      half[(code + 8) % 16] = std::bit_cast<int32_t>(h * scale) - (1 << 23);
      inverse[(code + 8) % 16] = (code ? std::bit_cast<int32_t>(1 / h / scale) : 0) + (1 << 23);
    }
  }
};
template <const Block& kB>
inline constexpr ScaleTable<kB> kScaleTable;

template <const Block& kB>
HWY_INLINE void ScalesOfCodes(DF d, VI code, ByteScales& s) {
  const DI di;
  const VI eights = hn::Max(hn::ShiftRight<3>(code), hn::Set(di, 1)), power = hn::ShiftLeft<23>(eights);
  const VI place = hn::Sub(code, hn::ShiftLeft<3>(eights));
  const VI half{_mm512_permutexvar_epi32(place.raw, hn::Load(di, kScaleTable<kB>.half).raw)};
  const VI inverse{_mm512_permutexvar_epi32(place.raw, hn::Load(di, kScaleTable<kB>.inverse).raw)};
  hn::Store(hn::BitCast(d, hn::Add(half, power)), d, s.half);
  hn::Store(hn::BitCast(d, hn::Sub(inverse, power)), d, s.inverse);
}

HWY_INLINE void SetWordScales(DF d, Numbers& n) {
  const DI di;
  const ByteScales &a = n.narrow, &b = n.wide;
  const VF narrow = hn::Load(d, a.inverse), wide = hn::Load(d, b.inverse);
  const VF square_root = hn::Mul(hn::Load(d, b.half), narrow), ratio = hn::Mul(hn::Load(d, a.half), wide);
  const VI word = hn::Min(Truncated(hn::MulAdd(ratio, hn::Set(d, 0x1p15f), hn::Set(d, 0.5f))), hn::Set(di, 0x7fff));
  hn::Store(hn::Mul(narrow, hn::Set(d, kWordOne)), d, n.words.inverse);
  hn::Store(hn::Or(word, hn::ShiftLeft<16>(word)), di, n.words.ratio);
  hn::Store(hn::Mul(square_root, square_root), d, n.words.square);
  // Under a scale of one or no steps weights may lie beyond what words hold.
  const VI byte = hn::Load(di, a.byte);
  n.differ = BitsOfMask(d, hn::RebindMask(d, hn::Ne(byte, hn::Load(di, b.byte))));
  n.unclear = n.differ & BitsOfMask(d, hn::RebindMask(d, hn::Lt(byte, hn::Set(di, 2))));
}

// The upper half of each number of two vectors.
struct Halves {
  alignas(64) uint16_t from[32] = {};
  constexpr Halves() {
    for (int k = 0; k < 32; ++k) from[k] = uint16_t(2 * k + 1);
  }
};

HWY_INLINE __m512i Saturated(VI a, VI b) { return _mm512_packs_epi32(a.raw, b.raw); }

HWY_INLINE __m512i SumSquares(__m512i sum, __m512i words) {
  asm("vpdpwssd %1, %1, %0" : "+v"(sum) : "v"(words));
  return sum;
}

// The words of four groups of 16, two of each group side by side in each 128-bit block.
struct FourGroups {
  __m512i even, odd;
};
HWY_INLINE FourGroups WordsOf(DF d, const float* HWY_RESTRICT x, const float* HWY_RESTRICT inverse) {
  __m512i pair[2];
#pragma GCC unroll 2
  for (int p = 0; p < 2; ++p) {
    VF u[2];
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) u[k] = hn::Mul(hn::LoadU(d, x + (2 * p + k) * 16), hn::Set(d, inverse[2 * p + k]));
    pair[p] = _mm512_packs_epi32(_mm512_cvtps_epi32(u[0].raw), _mm512_cvtps_epi32(u[1].raw));
  }
  const __m512 a = _mm512_castsi512_ps(pair[0]), b = _mm512_castsi512_ps(pair[1]);
  return {_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)), _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd))};
}

// Where two errors are less apart than words tell for certain: the square of the difference, from the sum. A word is
// off by 0.502, after the ratio by 1.502, the ratio's inverse at most 2: then 16 squares are off by 4.02 roots of their
// sum and 4, and by 24.04 roots and 145; together at most 24.4 roots and 149.
constexpr float kNearFactor = 600, kNearLeast = 2.7e6f;

// What is known of 16 groups before it is folded, four groups to a vector.
struct alignas(64) Unfolded {
  float most[4][kColumns];
  int32_t narrow[4][kColumns], wide[4][kColumns];  // squared errors in words of either scale
};
template <class Fold>
HWY_INLINE VF FoldBlocks(DF d, Fold fold, const float (&from)[4][kColumns]) {
  const VF v[4] = {hn::Load(d, from[0]), hn::Load(d, from[1]), hn::Load(d, from[2]), hn::Load(d, from[3])};
  alignas(64) float folded[kColumns];
  FoldSixteen(fold, v, folded);
  return hn::Load(d, folded);
}
HWY_INLINE VF TotalOfBlocks(DF d, const int32_t (&from)[4][kColumns]) {
  const DI di;
  const auto load = [&](int q) HWY_ATTR { return hn::BitCast(d, hn::Load(di, from[q])); };
  const VF v[4] = {load(0), load(1), load(2), load(3)};
  alignas(64) float folded[kColumns];
  FoldSixteen(TotalBits(), v, folded);
  return hn::ConvertTo(d, hn::BitCast(di, hn::Load(d, folded)));
}

// The greatest magnitudes of four groups of 16.
HWY_INLINE void FindPart(const float* HWY_RESTRICT x, int q, Unfolded& u) {
  const VI magnitude = hn::Set(DI(), 0x7fffffff);
  VF v[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const float* group = x + (4 * q + k) * 16;
    PrefetchGroup<16, 0>(group);
    v[k] = hn::BitCast(DF(), hn::And(LoadInOrder(group), magnitude));
  }
  hn::Store(FoldFour(GreatestBits(), v), DF(), u.most[q]);
}

// The squared errors of four groups of 16 under both scales.
HWY_INLINE void ComparePart(const float* HWY_RESTRICT x, const WordScales& s, int q, Unfolded& u) {
  const DF d;
  const __m512i low = _mm512_load_si512(kHalfStepTables.value), high = _mm512_load_si512(kHalfStepTables.value + 32);
  const auto rest = [&](__m512i v) EDGEQUANT_UNROLLED {
    return _mm512_sub_epi16(v, _mm512_permutex2var_epi16(low, _mm512_srli_epi16(v, kWordBits), high));
  };
  const auto squares = [&](__m512i even, __m512i odd) EDGEQUANT_UNROLLED {
    return SumSquares(SumSquares(_mm512_setzero_si512(), rest(even)), rest(odd));
  };
  const FourGroups g = WordsOf(d, x + q * 64, s.inverse + 4 * q);
  const __m512i ratio = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(s.ratio + 4 * q)));
  _mm512_store_si512(u.narrow[q], squares(g.even, g.odd));
  _mm512_store_si512(u.wide[q], squares(_mm512_mulhrs_epi16(g.even, ratio), _mm512_mulhrs_epi16(g.odd, ratio)));
}

// Where the bytes of four packed vectors, 16 at a time, go so that the first half has the low nibbles: one dword per
// four weights. Bytes of a field of kLanes hold weights that many apart.
template <int kLanes>
struct NibbleOrder {
  alignas(64) int32_t from[16] = {};
  constexpr NibbleOrder() {
    for (int k = 0; k < 16; ++k) {
      const int byte = k % 8 * 4, w = byte / kLanes * 2 * kLanes + byte % kLanes + k / 8 * kLanes;
      from[k] = w % 16 / 4 * 4 + w / 16;
    }
  }
};
template <int kLanes>
inline constexpr NibbleOrder<kLanes> kNibbleOrder;

// Codes of 64 weights, given as counts of half steps: 32 bytes.
template <int kLanes>
HWY_INLINE __m256i NibblesOf(VI v0, VI v1, VI v2, VI v3) {
  const __m512i counts = _mm512_packs_epi16(Saturated(v0, v1), Saturated(v2, v3));
  const __m512i low = _mm512_load_si512(kHalfStepTables.code), high = _mm512_load_si512(kHalfStepTables.code + 64);
  const __m512i codes = _mm512_permutex2var_epi8(low, counts, high);
  const __m512i order = _mm512_permutexvar_epi32(_mm512_load_si512(kNibbleOrder<kLanes>.from), codes);
  const __m256i mask = _mm256_set1_epi8(0x0f);
  return _mm256_ternarylogic_epi64(mask, _mm512_castsi512_si256(order), _mm512_extracti64x4_epi64(order, 1), 0xca);
}

// Four groups as they are stored.
template <const Block& kB>
HWY_INLINE void EmitPart(const float* HWY_RESTRICT x, const Numbers& n, int q, uint8_t* HWY_RESTRICT out) {
  constexpr int S = ShapeOf(kB).group, start = kB.codes[0].start / 8;
  static_assert(kB.codes[0].slots == 2 && (kB.n == 64 || kB.n == 32) && 4 * S % kB.n == 0);
  const DF d;
  x += 4 * q * S;
  out += 4 * q * S / kB.n * kB.bytes;
#pragma GCC unroll 2
  for (int j = 4 * q; j < 4 * q + 4; j += 64 / S, x += 64, out += 64 / kB.n * kB.bytes) {
    VI v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      v[i] = Truncated(hn::Mul(hn::LoadU(d, x + i * 16), hn::Set(d, n.inverse[j + i * 16 / S])));
    const __m256i nibbles = NibblesOf<kB.codes[0].lanes>(v[0], v[1], v[2], v[3]);
    if constexpr (kB.n == 64) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + start), nibbles);
      memcpy(out + kB.scale.byte, n.scale_byte + j, 64 / S);
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + start), _mm256_castsi256_si128(nibbles));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kB.bytes + start), _mm256_extracti128_si256(nibbles, 1));
      out[kB.scale.byte] = n.scale_byte[j];
      out[kB.bytes + kB.scale.byte] = n.scale_byte[j + 1];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();
#endif  // EDGEQUANT_ROUND_WORDS

#endif  // EDGEQUANT_ROUND_WORDS_INL_H_
