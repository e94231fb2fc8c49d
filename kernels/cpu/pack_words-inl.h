// Words of 16 rows: read, moved by a plan, and looked up.
#if defined(EDGEQUANT_PACK_WORDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_PACK_WORDS_INL_H_
#undef EDGEQUANT_PACK_WORDS_INL_H_
#else
#define EDGEQUANT_PACK_WORDS_INL_H_
#endif

#include <string.h>

#include <hwy/highway.h>

#include "kernels/cpu/pack_plan.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Words = uint32_t[kPanelRows];  // a word of each row: a line
using DW = hn::CappedTag<uint32_t, kPanelRows>;

// Vectors are of words on every target; four bytes of a word are computed at once without carries between them.
constexpr uint32_t Bytes4(uint32_t value) { return value * 0x01010101u; }

#if HWY_TARGET != HWY_SCALAR
// 16 bytes at `at` of every fourth row from `rows` on, one in each block of a vector.
template <class D>
HWY_INLINE hn::Vec<D> LoadRows(D d, const uint8_t* const* rows, size_t at) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return hn::BitCast(d, hn::LoadU(hn::Repartition<uint8_t, D>(), rows[0] + at));
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, LoadRows(half, rows + hn::Lanes(half), at), LoadRows(half, rows, at));
  }
}
#endif

// 4 words of 16 rows, to four lines.
HWY_INLINE void TransposeQuad(const uint8_t* const rows[kPanelRows], size_t at, Words* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t r = 0; r < kPanelRows; ++r)
    for (size_t i = 0; i < 4; ++i) memcpy(&out[i][r], rows[r] + at + 4 * i, 4);
#else
  const DW d;
  const hn::Repartition<uint64_t, DW> d64;
  for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d)) {
    const auto a = LoadRows(d, rows + r, at), b = LoadRows(d, rows + r + 1, at);
    const auto c = LoadRows(d, rows + r + 2, at), e = LoadRows(d, rows + r + 3, at);
    const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b)),
               ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
    const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b)),
               ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
    hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, ab_low, ce_low)), d, out[0] + r);
    hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, ce_low)), d, out[1] + r);
    hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, ab_high, ce_high)), d, out[2] + r);
    hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, ce_high)), d, out[3] + r);
  }
#endif
}

// Exchanges bits of `mask` with those kDistance above.
template <int kDistance, class V>
HWY_INLINE V SwapBits(V v, uint32_t mask) {
  const auto moved = hn::And(hn::Xor(v, hn::ShiftRight<kDistance>(v)), hn::Set(DW(), mask));
  return hn::Xor(hn::Xor(v, moved), hn::ShiftLeft<kDistance>(moved));
}

// Applies f to all vectors of `count` lines.
template <class F>
HWY_INLINE void ForWords(Words* lines, size_t count, const F& f) {
  const DW d;
  uint32_t* const p = *lines;
  for (size_t i = 0; i < count * kPanelRows; i += hn::Lanes(d)) hn::Store(f(hn::Load(d, p + i)), d, p + i);
}

// A stream of bits in the panel's order: PanelOrder() of the plan says the same for one bit.
template <class V>
HWY_INLINE V OrderOneBit(V v) {
  v = SwapBits<7>(SwapBits<14>(v, 0x0000cccc), 0x00aa00aa);
  return SwapBits<1>(SwapBits<2>(v, 0x0c0c0c0c), 0x22222222);
}

HWY_INLINE void OrderStreams(const PackPlan& plan, Words* HWY_RESTRICT out) {
  for (size_t i = plan.streams_ordered; i < plan.streams.size(); ++i) {
    Words* const of = out + plan.streams[i].source;
    if (plan.streams[i].bits == 1) ForWords(of, 1, [](auto v) HWY_ATTR { return OrderOneBit(v); });
    else ForWords(of, 1, [](auto v) HWY_ATTR { return SwapBits<6>(SwapBits<12>(v, 0x0000f0f0), 0x00cc00cc); });
  }
}

// The sources of a plan.
HWY_INLINE void ReadWords(const PackPlan& plan, const uint8_t* const rows[kPanelRows], Words* HWY_RESTRICT out) {
  for (size_t q = plan.quads_read; q < plan.quads.size(); ++q) TransposeQuad(rows, plan.quads[q], out + 4 * q);
  OrderStreams(plan, out);
}

// kCount lines of one pattern, handed to store(line, first row, vector).
template <size_t kCount, class Store>
HWY_INLINE void MakeAlike(const PackPlan& plan, const PackPattern& pattern, const PackLine* members,
                          const Words* HWY_RESTRICT words, const Store& store) {
  const DW d;
  const PackTerm* const terms = plan.terms.data();
  for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d)) {
    const uint32_t* from[kCount];
    hn::Vec<DW> v[kCount];
    for (size_t i = 0; i < kCount; ++i) {
      from[i] = words[members[i].source] + r;
      v[i] = hn::Zero(d);
    }
    const auto load = [&](size_t i, size_t source) HWY_ATTR { return hn::Load(d, from[i] + source * kPanelRows); };
    for (size_t t = pattern.begin; t < pattern.left; ++t) {
      const auto mask = hn::Set(d, terms[t].mask);
      for (size_t i = 0; i < kCount; ++i)
        v[i] = hn::Or(v[i], hn::And(hn::ShiftRightSame(load(i, terms[t].source), terms[t].shift), mask));
    }
    for (size_t t = pattern.left; t < pattern.end; ++t) {
      const auto mask = hn::Set(d, terms[t].mask);
      for (size_t i = 0; i < kCount; ++i)
        v[i] = hn::Or(v[i], hn::And(hn::ShiftLeftSame(load(i, terms[t].source), terms[t].shift), mask));
    }
    for (size_t i = 0; i < kCount; ++i) store(members[i].line, r, v[i]);
  }
}

// All lines of a plan.
template <class Store>
HWY_INLINE void MakeLines(const PackPlan& plan, const Words* HWY_RESTRICT words, const Store& store) {
  for (const PackPattern& p : plan.patterns) {
    const PackLine* m = plan.members.data() + p.first;
    const PackLine* const end = plan.members.data() + p.last;
    for (; end - m >= 4; m += 4) MakeAlike<4>(plan, p, m, words, store);
    if (end - m >= 2) MakeAlike<2>(plan, p, m, words, store), m += 2;
    if (end != m) MakeAlike<1>(plan, p, m, words, store);
  }
}
HWY_INLINE void MakeLines(const PackPlan& plan, const Words* words, Words* HWY_RESTRICT out) {
  MakeLines(plan, words, [&](size_t line, size_t r, auto v) HWY_ATTR { hn::Store(v, DW(), out[line] + r); });
}

template <class V>
HWY_INLINE V MinusBytes(V v, uint32_t four) {
  const DW d;
  const auto top = hn::Set(d, Bytes4(128)), less = hn::Set(d, four);
  const auto low = hn::Sub(hn::Or(v, top), hn::AndNot(top, less));
  return hn::Xor(low, hn::AndNot(hn::Xor(v, less), top));
}

// The rows of codes: lines of their lower bytes and, unless there are none, of the bits above those, to lines of the
// rows' lower and upper bytes.
constexpr uint32_t kInnerNibbles = 0x00f000f0;  // of pairs of bytes, the lower one of the two
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
// Of 128 rows at a time, in registers, for four lines of codes. `code` becomes the row's byte once its turn has come.
HWY_INLINE void LookUp(const PackRows& rows, size_t count, const Words* low, const Words* high,
                       Words* HWY_RESTRICT out) {
  constexpr size_t kAtOnce = 4;
  for (size_t first = 0; first < count; first += kAtOnce) {
    __m512i lower[kAtOnce], upper[kAtOnce], turn[kAtOnce];
    for (size_t i = 0; i < kAtOnce; ++i) {
      const size_t line = first + i < count ? first + i : count - 1;
      lower[i] = upper[i] = _mm512_load_si512(low[line]);
      turn[i] = _mm512_and_si512(_mm512_srli_epi16(lower[i], 7), _mm512_set1_epi8(1));
      if (!high) continue;
      const __m512i above = _mm512_load_si512(high[line]);
      turn[i] = _mm512_or_si512(turn[i], _mm512_add_epi8(above, above));
    }
    for (int t = 0; t < rows.count / 128; ++t) {
      const __m512i now = _mm512_set1_epi8(char(t));
      const __m512i low0 = _mm512_load_si512(rows.low + 128 * t), low1 = _mm512_load_si512(rows.low + 128 * t + 64);
      const __m512i high0 = _mm512_load_si512(rows.high + 128 * t), high1 = _mm512_load_si512(rows.high + 128 * t + 64);
      for (size_t i = 0; i < kAtOnce; ++i) {
        const __mmask64 mine = _mm512_cmpeq_epi8_mask(turn[i], now);
        lower[i] = _mm512_mask2_permutex2var_epi8(low0, lower[i], mine, low1);
        upper[i] = _mm512_mask2_permutex2var_epi8(high0, upper[i], mine, high1);
      }
    }
    for (size_t i = 0; i < kAtOnce && first + i < count; ++i) {
      hn::Vec<DW> a{lower[i]}, b{upper[i]};
      if (rows.in_pairs) a = SwapBits<4>(a, kInnerNibbles), b = SwapBits<4>(b, kInnerNibbles);
      hn::Store(a, DW(), out[first + i]);
      hn::Store(b, DW(), out[count + first + i]);
    }
  }
}
#else
HWY_INLINE void LookUp(const PackRows& rows, size_t count, const Words* low, const Words* high,
                       Words* HWY_RESTRICT out) {
  for (size_t line = 0; line < count; ++line)
    for (size_t r = 0; r < kPanelRows; ++r) {
      const uint32_t code = low[line][r], above = high ? high[line][r] : 0;
      uint32_t lower = 0, upper = 0;
      for (int at = 0; at < 32; at += 8) {
        const uint32_t row = (code >> at & 255) | (above >> at & 255) << 8;
        lower |= uint32_t{rows.low[row]} << at;
        upper |= uint32_t{rows.high[row]} << at;
      }
      out[line][r] = lower;
      out[count + line][r] = upper;
    }
  if (rows.in_pairs) ForWords(out, 2 * count, [](auto v) HWY_ATTR { return SwapBits<4>(v, kInnerNibbles); });
}
#endif

// Of each byte of 7 signs, in bit 0: the one that makes the number of minuses even.
template <class V>
HWY_INLINE V LastSigns(V v) {
  auto odd = hn::Xor(v, hn::ShiftRight<4>(v));
  odd = hn::Xor(odd, hn::ShiftRight<2>(odd));
  return hn::And(hn::Xor(odd, hn::ShiftRight<1>(odd)), hn::Set(DW(), Bytes4(1)));
}

// Lines of signs, in the panel's order, to lines `step` apart.
HWY_INLINE void OrderSigns(PackRecipe::Signs kind, const Words* HWY_RESTRICT from, size_t step,
                           Words* HWY_RESTRICT out) {
  const DW d;
  const auto each = [&](const auto& f) HWY_ATTR {
    for (size_t i = 0; i < kPackChunk / 32; ++i)
      for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d))
        hn::Store(f(hn::Load(d, from[i] + r)), d, out[i * step] + r);
  };
  if (kind == PackRecipe::Signs::kShift) {  // bits 2 i, for all of the eight weights
    each([&](auto v) HWY_ATTR {
      v = hn::Or(v, hn::ShiftLeft<1>(v));
      v = hn::Or(v, hn::ShiftLeft<8>(v));
      return hn::Or(v, hn::ShiftLeft<16>(v));
    });
  } else if (kind == PackRecipe::Signs::kOdd) {
    each([&](auto v) HWY_ATTR { return OrderOneBit(hn::Or(v, hn::ShiftLeft<7>(LastSigns(v)))); });
  } else {
    each([&](auto v) HWY_ATTR { return OrderOneBit(v); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_PACK_WORDS_INL_H_
