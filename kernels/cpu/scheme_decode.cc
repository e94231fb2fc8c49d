#include "kernels/cpu/scheme_decode.h"

#include <string.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "format/cell.h"
#include "format/plane.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scheme_decode.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/scheme_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// A table of up to 2^kBits numbers, another for each group.
template <int kBits>
struct GroupTable {
  static constexpr bool kWhole = false;
  const float* HWY_RESTRICT table;
  HWY_INLINE VF ValueOfCode(DF d, VI code) const { return TableValue<kBits>(d, table, code); }
};
template <class T>
struct IsGroupTable : std::false_type {};
template <int kBits>
struct IsGroupTable<GroupTable<kBits>> : std::true_type {};

template <class V>
HWY_INLINE V ValuesOfGroup(const DecodeRow& row, size_t g) {
  if constexpr (IsGroupTable<V>::value) return V{row.table + g * size_t(row.codes)};
  else return V(*row.values);
}

// Whole numbers from 0 on.
struct CountedCodes {
  static constexpr bool kWhole = false;
  explicit CountedCodes(const CodeValues&) {}
  HWY_INLINE VF ValueOfCode(DF d, VI code) const { return hn::ConvertTo(d, code); }
};

// The numbers of a group in all lanes.
struct GroupNumbers { VF scale, zero, minimum; };

// Where they come from.
template <bool kMinimum>
struct GroupSource {
  const float *scale, *zero, *minimum;  // null: the same for all groups
  float fixed_zero;
  explicit GroupSource(const DecodeRow& row)
      : scale(row.scale), zero(row.zeros == Zero::kNone || kMinimum ? nullptr : row.shift),
        minimum(kMinimum ? row.shift : nullptr), fixed_zero(row.values ? row.values->zero : 0.0f) {}
  HWY_INLINE GroupNumbers Of(DF d, size_t g) const {
    return {hn::Set(d, scale ? scale[g] : 1.0f), hn::Set(d, zero ? zero[g] : fixed_zero),
            hn::Set(d, kMinimum ? minimum[g] : 0.0f)};
  }
};

// What is added to value * scale: nothing, a minimum, or a minimum to a product that is exact (in one operation).
enum class Plus { kNothing, kMinimum, kMinimumFused };

template <Plus kPlus, class V>
HWY_INLINE VF WeightsOf(DF d, const V& values, const GroupNumbers& numbers, VI code) {
  VF v = values.ValueOfCode(d, code);
  if constexpr (V::kWhole) v = hn::Sub(v, numbers.zero);
  if constexpr (kPlus == Plus::kMinimumFused) return hn::MulAdd(v, numbers.scale, numbers.minimum);
  v = hn::Mul(v, numbers.scale);
  if constexpr (kPlus == Plus::kMinimum) v = hn::Add(v, numbers.minimum);
  return v;
}

// ---- Codes as bytes

// Each group: whole vectors, then the last one again further on; groups of less than one through memory.
template <Plus kPlus, class V>
HWY_NOINLINE void DecodeBytes(const DecodeRow& row, float* HWY_RESTRICT out) {
  const DF d;
  const DI di;
  const hn::Rebind<uint8_t, DF> d8;
  const size_t lanes = size_t(LanesF());
  const GroupSource<kPlus != Plus::kNothing> source(row);
  size_t g = 0;
  for (size_t first = 0; first < row.cols; first += row.group, ++g) {
    const V values = ValuesOfGroup<V>(row, g);
    const GroupNumbers numbers = source.Of(d, g);
    const size_t end = HWY_MIN(first + row.group, row.cols);
    size_t i = first;
    for (; i + lanes <= end; i += lanes)
      hn::StoreU(WeightsOf<kPlus>(d, values, numbers, hn::PromoteTo(di, hn::LoadU(d8, row.code + i))), d, out + i);
    if (i < end && i > first) {
      i = end - lanes;
      hn::StoreU(WeightsOf<kPlus>(d, values, numbers, hn::PromoteTo(di, hn::LoadU(d8, row.code + i))), d, out + i);
    } else if (i < end) {
      alignas(64) uint8_t rest[kColumns] = {};
      alignas(64) float y[kColumns];
      memcpy(rest, row.code + i, end - i);
      hn::Store(WeightsOf<kPlus>(d, values, numbers, hn::PromoteTo(di, hn::LoadU(d8, rest))), d, y);
      memcpy(out + i, y, (end - i) * sizeof(float));
    }
  }
}

// ---- Codes where they lie

enum class Lie { kBytes, kBits, kBitsOffset, kDigits };

// A copy of the pattern, which no store can change: what is loaded from it stays in registers.
template <Lie kLie>
struct LocalPattern {
  static constexpr int kPhases = kLie == Lie::kDigits ? 5 : 1;
  alignas(64) uint8_t pick[kPhases][64];
  alignas(64) uint32_t shift[kPhases][16];
  uint32_t offset, mask;
  size_t bytes;
  explicit LocalPattern(const CodePattern& t)
      : offset(uint32_t(t.offset)), mask(uint32_t(t.mask)), bytes(size_t(t.bytes)) {
    memcpy(pick, t.pick, sizeof pick);
    memcpy(shift, t.shift, sizeof shift);
  }
};

// Codes [c, c + lanes) of 16.
template <Lie kLie>
HWY_INLINE VI PickCodes([[maybe_unused]] DF d, const LocalPattern<kLie>& t, int phase, int c,
                        const uint8_t* HWY_RESTRICT p) {
  const DI di;
  if constexpr (kLie == Lie::kBytes) {
    const hn::Rebind<uint8_t, DF> bytes;
    return hn::PromoteTo(di, hn::Sub(hn::LoadU(bytes, p + c), hn::Set(bytes, uint8_t(t.offset))));
  }
  const hn::RebindToUnsigned<DF> du;
#if HWY_TARGET == HWY_SCALAR
  const uint8_t* const pick = t.pick[phase] + 4 * c;
  const auto word = hn::Set(du, uint32_t(p[pick[0]] | (pick[1] < 16 ? p[pick[1]] << 8 : 0)));
#else
  const hn::Repartition<uint8_t, DF> d8;
  const auto word =
      hn::BitCast(du, hn::TableLookupBytesOr0(hn::LoadDup128(d8, p), hn::Load(d8, t.pick[phase] + 4 * c)));
#endif
  const auto shift = hn::Load(du, t.shift[phase] + c);
  if constexpr (kLie == Lie::kDigits) {  // a byte times a power of three: the low byte is what is left of it
#if HWY_TARGET == HWY_SCALAR
    const auto product = hn::Mul(word, shift);
#else
    const hn::Repartition<uint16_t, DF> d16;
    const auto product = hn::BitCast(du, hn::Mul(hn::BitCast(d16, word), hn::BitCast(d16, shift)));
#endif
    const auto left = hn::And(product, hn::Set(du, 255u));
    return hn::BitCast(di, hn::ShiftRight<8>(hn::Add(hn::Add(left, left), left)));
  }
  auto code = hn::Shr(word, shift);
  if constexpr (kLie == Lie::kBitsOffset) code = hn::Sub(code, hn::Set(du, t.offset));
  return hn::BitCast(di, hn::And(code, hn::Set(du, t.mask)));
}

// `n` weights whose codes begin at p, from group g on.
template <Plus kPlus, Lie kLie, class V>
HWY_INLINE void DecodeRun(const DecodeRow& row, const LocalPattern<kLie>& t,
                          const GroupSource<kPlus != Plus::kNothing>& source, const uint8_t* HWY_RESTRICT p, size_t n,
                          size_t group, size_t g, float* HWY_RESTRICT out) {
  const DF d;
  int phase = 0;
  for (size_t i = 0; i < n; ++g) {
    const V values = ValuesOfGroup<V>(row, g);
    const GroupNumbers numbers = source.Of(d, g);
    const size_t end = HWY_MIN(i + group, n);
    do {
      for (int c = 0; c < 16; c += LanesF())
        hn::StoreU(WeightsOf<kPlus>(d, values, numbers, PickCodes<kLie>(d, t, phase, c, p)), d, out + i + c);
      if (kLie != Lie::kDigits) p += t.bytes;
      else if (++phase == t.kPhases) phase = 0, p += t.bytes;
      i += 16;
    } while (i < end);
  }
}

template <Plus kPlus, Lie kLie, class V>
HWY_NOINLINE void DecodePacked(const DecodeRow& row, float* HWY_RESTRICT out) {
  const LocalPattern<kLie> t(*row.packed.pattern);
  const GroupSource<kPlus != Plus::kNothing> source(row);
  const size_t run = HWY_MIN(row.packed.run, row.cols), runs = row.cols / run, step = row.packed.step,
               group = HWY_MIN(row.group, run);
  const size_t groups = (run + group - 1) / group, used = (run / 16 + t.kPhases - 1) / t.kPhases * t.bytes;
  const uint8_t* p = row.packed.first;
  size_t b = 0;
  const size_t left = size_t(row.packed.end - p);
  const size_t safe = left < used + 16 ? 0
                      : step           ? (left - used - 16) / step + 1
                                       : runs;  // a load of 16 bytes stays inside
  for (; b < HWY_MIN(runs, safe); ++b, p += step)
    DecodeRun<kPlus, kLie, V>(row, t, source, p, run, group, b * groups, out + b * run);
  for (; b < runs; ++b, p += step) {
    std::vector<uint8_t> copy(used + 16);
    memcpy(copy.data(), p, HWY_MIN(used, size_t(row.packed.end - p)));
    DecodeRun<kPlus, kLie, V>(row, t, source, copy.data(), run, group, b * groups, out + b * run);
  }
}

// Codebooks: each code stands for `dim` floats.
HWY_NOINLINE void DecodeVectors(const DecodeRow& row, float* HWY_RESTRICT out) {
  const size_t dim = size_t(row.dim);
  size_t g = 0;
  for (size_t i = 0; i < row.cols; i += row.group, ++g) {
    const size_t n = HWY_MIN(row.group, row.cols - i);
    const float scale = row.scale ? row.scale[g] : 1.0f;
    const uint8_t* HWY_RESTRICT code = row.code + (row.half_bits ? 2 : 1) * (i / dim);
    const auto vectors = [&](auto width) HWY_ATTR {
      constexpr size_t kDim = decltype(width)::value;
      if (row.half_bits) {
        for (size_t k = 0; k < n / kDim; ++k) {
          const float* const from = row.table + size_t(code[2 * k] | code[2 * k + 1] << row.half_bits) * kDim;
          for (size_t j = 0; j < kDim; ++j) out[i + k * kDim + j] = from[j] * scale;
        }
        return;
      }
      for (size_t k = 0; k < n / kDim; ++k)
        for (size_t j = 0; j < kDim; ++j) out[i + k * kDim + j] = row.table[code[k] * kDim + j] * scale;
    };
    switch (dim) {
      case 2: vectors(std::integral_constant<size_t, 2>()); break;
      case 4: vectors(std::integral_constant<size_t, 4>()); break;
      default: vectors(std::integral_constant<size_t, 8>()); break;
    }
  }
}

template <class V, Plus kPlus>
HWY_INLINE void DecodeFrom(const DecodeRow& row, float* out) {
  const CodePattern* const t = row.packed.pattern;
  if (!t) return DecodeBytes<kPlus, V>(row, out);
  if (t->phases > 1) return DecodePacked<kPlus, Lie::kDigits, V>(row, out);
  if (t->bytes == 16) return DecodePacked<kPlus, Lie::kBytes, V>(row, out);
  if (t->offset) return DecodePacked<kPlus, Lie::kBitsOffset, V>(row, out);
  DecodePacked<kPlus, Lie::kBits, V>(row, out);
}

template <class V>
HWY_INLINE void DecodeWith(const DecodeRow& row, float* out) {
  if (row.zeros != Zero::kMinimum) return DecodeFrom<V, Plus::kNothing>(row, out);
  if (row.exact_products) return DecodeFrom<V, Plus::kMinimumFused>(row, out);
  DecodeFrom<V, Plus::kMinimum>(row, out);
}

void DecodeTable(const DecodeRow& row, float* out) {
  switch (row.values->bits) {
    case 1:
    case 2: return DecodeWith<TableCodes<2>>(row, out);
    case 3: return DecodeWith<TableCodes<3>>(row, out);
    case 4: return DecodeWith<TableCodes<4>>(row, out);
    default: return DecodeWith<TableCodes<8>>(row, out);
  }
}

void DecodeTargeted(const DecodeRow& row, float* out) {
  if (row.dim > 1) return DecodeVectors(row, out);
  if (!row.values) {
    if (row.codes <= 4) return DecodeWith<GroupTable<2>>(row, out);
    if (row.codes <= 16) return DecodeWith<GroupTable<4>>(row, out);
    return DecodeWith<GroupTable<8>>(row, out);
  }
  if (row.values->kind == Values::kMinifloat) return DecodeWith<MinifloatCodes>(row, out);
  if (row.values->kind != Values::kAffine) return DecodeTable(row, out);
  if (row.zeros != Zero::kNone && row.zeros != Zero::kMinimum) return DecodeWith<WholeCodes>(row, out);
  if (row.values->zero == 0) return DecodeWith<CountedCodes>(row, out);
  // one look-up in a register takes the place of a conversion and a difference
  if (hn::MaxLanes(DF()) == 16 && row.values->bits <= 4) return DecodeTable(row, out);
  DecodeWith<WholeCodes>(row, out);
}

// ---- Numbers

void ReadScaledTargeted(const CodePattern& pattern, const uint8_t* from, const uint8_t* end, size_t step, size_t blocks,
                        size_t n, float zero, const float* super, float* HWY_RESTRICT out) {
  const DF d;
  const LocalPattern<Lie::kBits> t(pattern);
  const VF zeros = hn::Set(d, zero);
  const size_t total = blocks * n;
  for (size_t b = 0; b < blocks; ++b, from += step) {
    const VF by = hn::Set(d, super[b]);
    const uint8_t* p = from;
    for (size_t j = 0; j < n; j += 16, p += t.bytes) {
      uint8_t copy[16] = {};
      if (size_t(end - p) < 16) memcpy(copy, p, size_t(end - p));
      const uint8_t* const bytes = size_t(end - p) < 16 ? copy : p;
      alignas(64) float last[16];
      const size_t at = b * n + j;
      float* const to = at + 16 <= total ? out + at : last;  // what is too much is written again by the next
      for (int c = 0; c < 16; c += LanesF())
        hn::StoreU(hn::Mul(hn::Sub(hn::ConvertTo(d, PickCodes<Lie::kBits>(d, t, 0, c, bytes)), zeros), by), d, to + c);
      if (to == last) memcpy(out + at, last, HWY_MIN(n - j, size_t{16}) * sizeof(float));
    }
  }
}

template <bool kF16>
void ReadHalves(const uint8_t* from, size_t step, size_t runs, size_t run, float* HWY_RESTRICT out) {
  constexpr size_t kAtOnce = 64;
  alignas(64) uint16_t raw[kAtOnce] = {};
  for (size_t at = 0, total = runs * run, k = 0; at < total;) {
    const size_t n = HWY_MIN(kAtOnce, total - at);
    if (run == 1) {
      for (size_t i = 0; i < n; ++i, from += step) memcpy(&raw[i], from, 2);
    } else {
      for (size_t i = 0; i < n; ++i) {
        memcpy(&raw[i], from + k * 2, 2);
        if (++k == run) k = 0, from += step;
      }
    }
    size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    const DF d;
    const hn::Rebind<uint16_t, DF> d16;
    const auto numbers = [&](size_t first) HWY_ATTR {
      const auto bits = hn::LoadU(d16, raw + first);
      if constexpr (kF16) return PromoteF16(d, bits);
      else return PromoteBF16(d, bits);
    };
    for (; i + size_t(LanesF()) <= n; i += size_t(LanesF())) hn::StoreU(numbers(i), d, out + at + i);
#endif
    for (; i < n; ++i) out[at + i] = kF16 ? F16ToF32(raw[i]) : FloatOfBits(uint32_t{raw[i]} << 16);
    at += n;
  }
}

void ReadHalvesTargeted(bool f16, const uint8_t* from, size_t step, size_t runs, size_t run, float* out) {
  if (f16) ReadHalves<true>(from, step, runs, run, out);
  else ReadHalves<false>(from, step, runs, run, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(DecodeTargeted);
HWY_EXPORT(ReadHalvesTargeted);
HWY_EXPORT(ReadScaledTargeted);
void DecodeCodes(const DecodeRow& row, float* out) { HWY_DYNAMIC_DISPATCH(DecodeTargeted)(row, out); }

void ReadScaledIntegers(const CodePattern& pattern, const uint8_t* from, const uint8_t* end, size_t step, size_t blocks,
                        size_t n, float zero, const float* super, float* out) {
  HWY_DYNAMIC_DISPATCH(ReadScaledTargeted)(pattern, from, end, step, blocks, n, zero, super, out);
}

CodePattern PatternOf(const Plane& p) {
  CodePattern t;
  t.phases = p.trits ? 5 : 1;
  t.bytes = p.trits ? 16 : 2 * p.bits;
  t.offset = p.offset;
  t.mask = (1 << p.bits) - 1;
  for (int phase = 0; phase < t.phases; ++phase)
    for (int i = 0; i < 16; ++i) {
      uint8_t* const pick = &t.pick[phase][4 * i];
      memset(pick, 0x80, 4);
      if (p.trits) {
        pick[0] = uint8_t((16 * phase + i) / 5);
        t.shift[phase][i] = uint32_t(PowerOfThree((16 * phase + i) % 5));
        continue;
      }
      const int first = i * p.bits / 8, bit = i * p.bits % 8;
      pick[0] = uint8_t(first);
      if (first < 15) pick[1] = uint8_t(first + 1);
      t.shift[phase][i] = uint32_t(p.high_first ? 8 - p.bits - bit : bit);
    }
  return t;
}

namespace {

// Numbers of 8 bits are looked up.
struct SmallNumbers {
  float of[256];
  explicit SmallNumbers(Cell cell) {
    for (int k = 0; k < 256; ++k) {
      const uint8_t byte = uint8_t(k);
      of[k] = ReadCell(cell, &byte);
    }
  }
};

}  // namespace

void ReadCells(Cell cell, const uint8_t* from, size_t step, size_t runs, size_t run, float* out) {
  if (cell == Cell::kF16 || cell == Cell::kBF16)
    return HWY_DYNAMIC_DISPATCH(ReadHalvesTargeted)(cell == Cell::kF16, from, step, runs, run, out);
  if (cell == Cell::kF32) {
    for (size_t b = 0; b < runs; ++b, from += step, out += run) memcpy(out, from, run * sizeof(float));
    return;
  }
  static const SmallNumbers e8m0(Cell::kE8M0), e4m3(Cell::kE4M3), integer(Cell::kInteger);
  const float* const of = cell == Cell::kE8M0 ? e8m0.of : cell == Cell::kE4M3 ? e4m3.of : integer.of;
  for (size_t b = 0; b < runs; ++b, from += step)
    for (size_t k = 0; k < run; ++k) *out++ = of[from[k]];
}

}  // namespace edgequant
#endif
