// The nearest value of the codes of a run-time format, per lane: Value(u) and Code(u), u being a weight over its scale
// (plus the zero point of whole numbers, which count from 0).
#if defined(EDGEQUANT_SCHEME_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_SCHEME_VALUES_INL_H_
#undef EDGEQUANT_SCHEME_VALUES_INL_H_
#else
#define EDGEQUANT_SCHEME_VALUES_INL_H_
#endif

#include <math.h>
#include <string.h>

#undef EDGEQUANT_TABLE_CELLS

#include "kernels/cpu/scheme_values.h"
#include "kernels/cpu/search_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

struct WholeCodes {
  static constexpr bool kWhole = true, kRounded = true, kBytes = false;
  VF high;
  explicit WholeCodes(const CodeValues& v) : high(hn::Set(DF(), float(v.codes - 1))) {}
  HWY_INLINE VF Value(DF d, VF u) const { return hn::Round(hn::Min(hn::Max(u, hn::Zero(d)), high)); }
  HWY_INLINE VI Code(DF d, VF u) const { return hn::NearestInt(hn::Min(hn::Max(u, hn::Zero(d)), high)); }
  HWY_INLINE VF ValueOfCode(DF d, VI code) const { return hn::ConvertTo(d, code); }
};

// table[i], i < 2^kBits.
template <int kBits>
HWY_INLINE VF TableValue(DF d, const float* HWY_RESTRICT table, VI i) {
  constexpr int lanes = int(hn::MaxLanes(DF()));
  if constexpr (lanes > 1 && lanes >= (1 << kBits)) {
    return hn::TableLookupLanes(hn::LoadU(d, table), hn::IndicesFromVec(d, i));
  } else if constexpr (lanes == 8 && kBits == 4) {
    const DI di;
    const auto low = hn::IndicesFromVec(d, hn::And(i, hn::Set(di, 7)));
    return hn::IfThenElse(hn::RebindMask(d, hn::Gt(i, hn::Set(di, 7))),
                          hn::TableLookupLanes(hn::LoadU(d, table + 8), low),
                          hn::TableLookupLanes(hn::LoadU(d, table), low));
  } else {
    return hn::GatherIndex(d, table, i);
  }
}

template <int kLevels>
struct TableCodes {
  static constexpr bool kWhole = false, kRounded = false, kBytes = false;
  const CodeValues& t;
  explicit TableCodes(const CodeValues& v) : t(v) {}

  static HWY_INLINE VI Below(VI k, VF u, VF limit) {  // 2k, + 1 where u is above the limit
    const DI di;
    const VI twice = hn::Add(k, k);
    return hn::IfThenElse(hn::RebindMask(di, hn::Gt(u, limit)), hn::Add(twice, hn::Set(di, 1)), twice);
  }
  HWY_INLINE VI Rank([[maybe_unused]] DF d, VF u) const {
#if HWY_TARGET == HWY_SCALAR  // g++ 12 breaks the descent when it vectorizes it
    const float f = hn::GetLane(u);
    int k = 0;
    for (int l = 0; l < kLevels; ++l) k = 2 * k + (f > t.limit[l][k]);
    return hn::Set(DI(), k);
#else
    VI k = Below(hn::Zero(DI()), u, hn::Set(d, t.limit[0][0]));
    if constexpr (kLevels > 1) k = Below(k, u, TableValue<1>(d, t.limit[1], k));
    if constexpr (kLevels > 2) k = Below(k, u, TableValue<2>(d, t.limit[2], k));
    if constexpr (kLevels > 3) k = Below(k, u, TableValue<3>(d, t.limit[3], k));
    if constexpr (kLevels > 4) k = Below(k, u, TableValue<4>(d, t.limit[4], k));
    if constexpr (kLevels > 5)
      for (int l = 5; l < kLevels; ++l) k = Below(k, u, hn::GatherIndex(d, t.limit[l], k));
    return k;
#endif
  }
  HWY_INLINE VF Value(DF d, VF u) const {
    if constexpr (kLevels == 1)
      return hn::IfThenElse(hn::Gt(u, hn::Set(d, t.limit[0][0])), hn::Set(d, t.sorted[1]), hn::Set(d, t.sorted[0]));
    return TableValue<kLevels>(d, t.sorted, Rank(d, u));
  }
  HWY_INLINE VI Code(DF d, VF u) const {
    if constexpr (kLevels <= 4 && HWY_TARGET != HWY_SCALAR)  // moved as floats
      return hn::BitCast(DI(), TableValue<kLevels>(d, reinterpret_cast<const float*>(t.code), Rank(d, u)));
    return hn::GatherIndex(DI(), t.code, Rank(d, u));
  }
  HWY_INLINE VF ValueOfCode(DF d, VI code) const { return TableValue<kLevels>(d, t.value, code); }
};

// Tables of up to 16 values, two look-ups in place of the tree's four.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define EDGEQUANT_TABLE_CELLS 1
struct CellCodes {
  static constexpr bool kWhole = false, kRounded = false, kBytes = false;
  const CodeValues& t;
  explicit CellCodes(const CodeValues& v) : t(v) {}
  HWY_INLINE VI Rank(DF d, VF u) const {
    const DI di;
    const VF place = hn::MulAdd(u, hn::Set(d, t.cells_per_unit), hn::Set(d, t.first_cell));
    const VI cell = hn::ConvertTo(di, hn::Min(hn::Max(place, hn::Zero(d)), hn::Set(d, float(CodeValues::kCells - 1))));
    const VF limit{_mm512_permutex2var_ps(hn::Load(d, t.cell_limit).raw, cell.raw, hn::Load(d, t.cell_limit + 16).raw)};
    const VI rank{
        _mm512_permutex2var_epi32(hn::Load(di, t.cell_rank).raw, cell.raw, hn::Load(di, t.cell_rank + 16).raw)};
    return hn::IfThenElse(hn::RebindMask(di, hn::Gt(u, limit)), hn::Add(rank, hn::Set(di, 1)), rank);
  }
  HWY_INLINE VF Value(DF d, VF u) const { return TableValue<4>(d, t.sorted, Rank(d, u)); }
  HWY_INLINE VI Code(DF d, VF u) const {
    return hn::BitCast(DI(), TableValue<4>(d, reinterpret_cast<const float*>(t.code), Rank(d, u)));
  }
  HWY_INLINE VF ValueOfCode(DF d, VI code) const { return TableValue<4>(d, t.value, code); }
};
#else
#define EDGEQUANT_TABLE_CELLS 0
#endif

// A sign, an exponent, a mantissa: rounded to nearest even by a sum that pushes the lower bits out. The bits of a code
// in the places of a float's are a number 2^k too small.
struct MinifloatCodes {
  static constexpr bool kWhole = false, kRounded = true, kBytes = false;
  int drop, sign_shift, sign_bit, least;  // mantissa bits dropped; from a code's sign to a float's; least exponent
  int32_t highest_bits;
  float highest, infinity, unit;
  explicit MinifloatCodes(const CodeValues& v)
      : drop(23 - v.mantissa_bits), sign_shift(32 - v.bits), sign_bit(1 << (v.bits - 1)),
        least((128 - v.exponent_bias) << 23), highest(v.high) {
    unit = ldexpf(1, 127 - v.exponent_bias);
    memcpy(&highest_bits, &highest, sizeof highest_bits);
    infinity = ldexpf(1, (1 << (v.bits - 1 - v.mantissa_bits)) - 1 - v.exponent_bias);
  }
  HWY_INLINE VF Magnitude(DF d, VF u) const {
    const DI di;
    const VF magnitude = hn::Min(hn::Abs(u), hn::Set(d, highest));
    const VI exponent = hn::Max(hn::And(hn::BitCast(di, magnitude), hn::Set(di, 0x7f800000)), hn::Set(di, least));
    const VF big = hn::BitCast(d, hn::Add(exponent, hn::Set(di, (drop << 23) + 0x400000)));
    return hn::Sub(hn::Add(magnitude, big), big);
  }
  HWY_INLINE VF Value(DF d, VF u) const { return hn::CopySignToAbs(Magnitude(d, u), u); }
  HWY_INLINE VI Code(DF d, VF u) const { return Code(d, u, u); }
  // The code of a number's magnitude with the sign of another. The lowest bits of the sum count its steps: past the
  // least exponent as many are missing for each power of two as its exponent counts.
  HWY_INLINE VI Code(DF d, VF u, VF signs) const {
    const DI di;
    const hn::RebindToUnsigned<DF> du;
    const VI magnitude = hn::Min(hn::BitCast(di, hn::Abs(u)), hn::Set(di, highest_bits));
    const VI exponent = hn::Max(hn::And(magnitude, hn::Set(di, 0x7f800000)), hn::Set(di, least));
    const VF big = hn::BitCast(d, hn::Add(exponent, hn::Set(di, (drop << 23) + 0x400000)));
    const VI steps = hn::BitCast(di, hn::Add(hn::BitCast(d, magnitude), big));
    const VI code = hn::Sub(hn::Add(steps, hn::ShiftRightSame(exponent, drop)), hn::Set(di, least >> drop));
    const VI sign = hn::BitCast(di, hn::ShiftRightSame(hn::BitCast(du, signs), sign_shift));
    return hn::Or(hn::And(code, hn::Set(di, sign_bit - 1)), hn::And(sign, hn::Set(di, sign_bit)));
  }
  HWY_INLINE VF ValueOfCode(DF d, VI code) const {
    const DI di;
    const VI sign = hn::ShiftLeftSame(code, sign_shift);
    const VI magnitude = hn::AndNot(hn::Set(di, 1 << (31 - sign_shift)), code);
    const VF v = hn::Mul(hn::BitCast(d, hn::ShiftLeftSame(magnitude, drop)), hn::Set(d, unit));
    const VF past = hn::IfThenElse(hn::Eq(v, hn::Set(d, infinity)), hn::Set(d, INFINITY), hn::Set(d, NAN));
    const VF value = hn::IfThenElse(hn::Gt(v, hn::Set(d, highest)), past, v);
    return hn::CopySignToAbs(value, hn::BitCast(d, sign));
  }
};

// Those of 8 bits with the instructions of AVX3_DL: what is added holds the code of its power of two, and the sum's
// lowest 7 bits the code of the number. Halves go to even sums, which are even codes if there is a mantissa.
#undef EDGEQUANT_FLOAT8
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
#define EDGEQUANT_FLOAT8 1
struct Float8Codes : MinifloatCodes {
  static constexpr bool kBytes = true;
  using MinifloatCodes::MinifloatCodes;
  static bool Are(const CodeValues& v) { return v.kind == Values::kMinifloat && v.bits == 8 && v.mantissa_bits > 0; }
  HWY_INLINE __m512i Steps(VF u) const {
    const DI di;
    const DF d;
    const VF magnitude{_mm512_range_ps(u.raw, hn::Set(d, highest).raw, 0b1010)};  // the least of both, without sign
    const VI exponent = hn::Max(hn::And(hn::BitCast(di, magnitude), hn::Set(di, 0x7f800000)), hn::Set(di, least));
    const VI to_steps = hn::Set(di, (drop << 23) + 0x400000 - (least >> drop));
    const VI big = hn::Add(hn::Add(exponent, hn::ShiftRightSame(exponent, drop)), to_steps);
    return hn::BitCast(di, hn::Add(magnitude, hn::BitCast(d, big))).raw;
  }
};
#else
#define EDGEQUANT_FLOAT8 0
#endif

// The codes of a format as one of these types.
template <class Body>
HWY_INLINE void WithValues(const CodeValues& v, const Body& body) {
  if (v.kind == Values::kAffine) return body(WholeCodes(v));
  if (v.kind == Values::kMinifloat) return body(MinifloatCodes(v));
  switch (v.levels) {
    case 1: return body(TableCodes<1>(v));
    case 2: return body(TableCodes<2>(v));
    case 3: return body(TableCodes<3>(v));
    case 4:
#if EDGEQUANT_TABLE_CELLS
      if (v.in_cells) return body(CellCodes(v));
#endif
      return body(TableCodes<4>(v));
    case 5: return body(TableCodes<5>(v));
    case 6: return body(TableCodes<6>(v));
    case 7: return body(TableCodes<7>(v));
    default: return body(TableCodes<8>(v));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_SCHEME_VALUES_INL_H_
