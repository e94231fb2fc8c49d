// Highway decoder for every described format: the description is a template argument, so all offsets, shifts and
// masks fold to constants. Included once per target by foreach_target.h; no include guard in the usual sense.
#if defined(EDGEQUANT_DEQUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_DEQUANTIZE_INL_H_
#undef EDGEQUANT_DEQUANTIZE_INL_H_
#else
#define EDGEQUANT_DEQUANTIZE_INL_H_
#endif

#include <hwy/highway.h>

#include "format/decode.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Codes are read kN at a time (16, 32 or 64, all bytes of one vector), floats are written N(df) at a time.
template <int kN> using Bytes = hn::CappedTag<uint8_t, kN>;
// SVE and RVV promise no more than 128 bits when this is compiled.
constexpr int kMaxBytes = HWY_HAVE_SCALABLE ? 16 : HWY_MIN(64, int(hn::MaxLanes(hn::ScalableTag<uint8_t>())));
constexpr int kMaxFloats = HWY_HAVE_SCALABLE ? 4 : HWY_MIN(16, int(hn::MaxLanes(hn::ScalableTag<float>())));

// ---- How kN consecutive elements of a field can be read; all of this is evaluated by the compiler.

enum class Access { kAbsent, kPlane, kWindow, kSplit };

// kPlane: consecutive bytes, one shift. kWindow: anything within 16 bytes. Otherwise the run is split in two.
constexpr Access AccessOf(const Field& f, int first, int n, int count) {
  if (!Covers(f, first) && !Covers(f, first + n - 1)) return Access::kAbsent;
  if (!Covers(f, first) || !Covers(f, first + n - 1)) return Access::kSplit;
  const int at = FirstBit(f, first);
  bool plane = at % 8 + f.bits <= 8 && count == n;
  int low = at / 8, high = at / 8;
  for (int k = 0; k < count; ++k) {
    const int bit = FirstBit(f, first + k);
    if (bit != at + 8 * k || (f.kind == FieldKind::kTrits && SlotOf(f, first + k) != SlotOf(f, first))) plane = false;
    low = HWY_MIN(low, bit / 8);
    high = HWY_MAX(high, (bit + f.bits - 1) / 8);
  }
  return plane ? Access::kPlane : high - low < 16 ? Access::kWindow : Access::kSplit;
}

// Shuffle indices and multipliers that bring element k's bits to the top byte of a 16-bit lane.
// Even elements use `even`, odd ones `odd`; the window starts at byte `base`.
template <int kN> struct Window {
  int base = 0;
  alignas(64) uint8_t even[kN] = {}, odd[kN] = {};
  alignas(64) uint16_t even_factor[kN / 2] = {}, odd_factor[kN / 2] = {};
};
template <int kN>
constexpr Window<kN> WindowOf(const Field& f, int first, int count, int block_bytes) {
  Window<kN> w;
  w.base = 1 << 30;
  for (int k = 0; k < count; ++k) w.base = HWY_MIN(w.base, FirstBit(f, first + k) / 8);
  w.base = HWY_MIN(w.base, block_bytes - 16);  // stay inside the block
  for (int k = 0; k < kN; ++k) {
    const int bit = FirstBit(f, first + HWY_MIN(k, count - 1)), byte = bit / 8 - w.base;
    uint8_t* index = k % 2 ? w.odd : w.even;
    index[k / 2 * 2] = uint8_t(byte);
    index[k / 2 * 2 + 1] = uint8_t(HWY_MIN(byte + 1, 15));
    (k % 2 ? w.odd_factor : w.even_factor)[k / 2] =
        uint16_t(f.kind == FieldKind::kTrits ? PowerOf3(SlotOf(f, first + HWY_MIN(k, count - 1))) : 1 << (8 - bit % 8));
  }
  return w;
}

#if HWY_TARGET != HWY_SCALAR
// ---- Reading codes

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

// Elements [kFirst, kFirst + kN) of one field; only the first kCount of them matter.
template <Field kF, int kFirst, int kN, int kCount, int kBlockBytes>
HWY_INLINE hn::Vec<Bytes<kN>> ReadField(const uint8_t* HWY_RESTRICT block) {
  const Bytes<kN> d;
  constexpr Access access = AccessOf(kF, kFirst, kN, kCount);
  if constexpr (access == Access::kAbsent) {
    return hn::Zero(d);
  } else if constexpr (access == Access::kPlane) {
    constexpr int at = FirstBit(kF, kFirst);
    auto v = hn::LoadU(d, block + at / 8);
    if constexpr (kF.kind == FieldKind::kTrits) {
      constexpr int slot = SlotOf(kF, kFirst);
      if constexpr (slot > 0) v = hn::Add(hn::Add(v, v), v);
      if constexpr (slot > 1) v = hn::Add(hn::Add(v, v), v);
      if constexpr (slot > 2) v = hn::Add(hn::Add(v, v), v);
      if constexpr (slot > 3) v = hn::Add(hn::Add(v, v), v);
      return TopTrit(d, v);
    } else if constexpr (kF.bits == 8) {
      return v;
    } else {  // shift to the final place at once, then mask
      constexpr int right = at % 8 - kF.up;
      v = right >= 0 ? BitsRight<HWY_MAX(right, 0)>(d, v) : BitsLeft<HWY_MAX(-right, 0)>(d, v);
      return hn::And(v, hn::Set(d, uint8_t(((1 << kF.bits) - 1) << kF.up)));
    }
  } else if constexpr (access == Access::kSplit) {  // scattered sub-scales: one by one
    static_assert(kN == 16);
    alignas(16) uint8_t v[16] = {};
    for (int k = 0; k < kCount; ++k) v[k] = uint8_t(edgequant::ReadField(kF, block, kFirst + k));
    return hn::Load(d, v);
  } else {
    static constexpr Window<kN> w = WindowOf<kN>(kF, kFirst, kCount, kBlockBytes);
    const hn::Repartition<uint16_t, decltype(d)> d16;
    const auto bytes = hn::LoadDup128(d, block + w.base);
    const auto even = hn::BitCast(d16, hn::TableLookupBytes(bytes, hn::Load(d, w.even)));
    const auto odd = hn::BitCast(d16, hn::TableLookupBytes(bytes, hn::Load(d, w.odd)));
    const auto e = hn::Mul(even, hn::Load(d16, w.even_factor)), o = hn::Mul(odd, hn::Load(d16, w.odd_factor));
    if constexpr (kF.kind == FieldKind::kTrits) {  // the low byte of the product
      const auto low = hn::Set(d16, uint16_t{255});
      return TopTrit(d, hn::BitCast(d, hn::Or(hn::And(e, low), hn::ShiftLeft<8>(o))));
    } else {                                       // the high byte
      const auto high = hn::Set(d16, uint16_t{0xff00});
      auto v = hn::BitCast(d, hn::Or(hn::ShiftRight<8>(e), hn::And(o, high)));
      if constexpr (kF.bits < 8) v = hn::And(v, hn::Set(d, uint8_t((1 << kF.bits) - 1)));
      return BitsLeft<kF.up>(d, v);
    }
  }
}

// ---- Scales

template <Number kType>
HWY_INLINE float LoadNumber(const uint8_t* p) {
  if constexpr (kType == Number::kF16) {
    uint16_t bits;
    memcpy(&bits, p, 2);
    const hn::CappedTag<float, 4> df;
    const hn::Rebind<hwy::float16_t, decltype(df)> dh;
    const hn::Rebind<uint16_t, decltype(df)> du;
    return hn::GetLane(hn::PromoteTo(df, hn::BitCast(dh, hn::Set(du, bits))));
  } else {
    return ReadNumber(kType, p);
  }
}

// All values of one level, one float per group, in out[0 .. 16).
template <Level kL, int kWeights, int kBlockBytes>
HWY_INLINE void ExpandLevel(const uint8_t* HWY_RESTRICT block, float* HWY_RESTRICT out) {
  constexpr int numbers = kL.group ? kWeights / kL.group : 1;
  if constexpr (kL.sub_group == 0) {
    for (int g = 0; g < numbers; ++g) out[g] = kL.factor * LoadNumber<kL.type>(block + kL.byte + g * SizeOf(kL.type));
  } else {
    static_assert(numbers == 1 && kWeights / kL.sub_group <= 16);
    constexpr int count = kWeights / kL.sub_group;
    const Bytes<16> d8;
    const hn::RebindToSigned<decltype(d8)> ds8;
    auto v = ReadField<kL.sub[0], 0, 16, count, kBlockBytes>(block);
    if constexpr (kL.sub[1].kind != FieldKind::kNone) v = hn::Or(v, ReadField<kL.sub[1], 0, 16, count, kBlockBytes>(block));
    alignas(16) int8_t q[16];
    hn::Store(hn::BitCast(ds8, v), ds8, q);
    const hn::CappedTag<float, kMaxFloats> df;
    const hn::RebindToSigned<decltype(df)> di;
    const hn::Rebind<int8_t, decltype(df)> dq;
    const auto scale = hn::Set(df, kL.factor * LoadNumber<kL.type>(block + kL.byte));
    for (int g = 0; g < count; g += kMaxFloats)
      hn::Store(hn::Mul(scale, hn::Sub(hn::ConvertTo(df, hn::PromoteTo(di, hn::Load(dq, q + g))), hn::Set(df, kL.sub_zero))), df, out + g);
  }
}
constexpr int GroupOf(const Level& s, int weight) { return s.sub_group ? weight / s.sub_group : s.group ? weight / s.group : 0; }

// ---- Codes to floats

struct Table16 { alignas(16) int8_t v[16]; };
// A table of up to 16 values, as int8 after doubling away halves; `factor` undoes the doubling.
struct ByteTable { bool ok = true; float factor = 1; Table16 t = {}; };
constexpr ByteTable ByteTableOf(const Map& map) {
  ByteTable b;
  for (int doubling = 1; doubling <= 4; doubling *= 2) {
    b.ok = true;
    b.factor = 1.0f / float(doubling);
    for (int k = 0; k < 16; ++k) {
      const float v = map.values[k] * float(doubling);
      if (v < -128 || v > 127 || v != float(int(v))) { b.ok = false; break; }
      b.t.v[k] = int8_t(v);
    }
    if (b.ok) break;
  }
  return b;
}


template <const Block& kB, int kFirst, class D, class V>  // the tag is passed: DFromV forgets the cap on SVE
HWY_INLINE void EmitBytes(D, V v, const float* HWY_RESTRICT scale, const float* HWY_RESTRICT offset, float* HWY_RESTRICT out) {
  constexpr int n = int(hn::MaxLanes(D()));
  if constexpr (n > kMaxFloats) {
    const hn::Half<D> half;
    EmitBytes<kB, kFirst>(half, hn::LowerHalf(half, v), scale, offset, out);
    EmitBytes<kB, kFirst + n / 2>(half, hn::UpperHalf(half, v), scale, offset, out);
  } else {
    const hn::CappedTag<float, n> df;
    const hn::RebindToSigned<decltype(df)> di;
    const auto s = hn::Set(df, scale[GroupOf(kB.scale, kFirst)]);
    auto y = hn::Mul(hn::ConvertTo(df, hn::PromoteTo(di, v)), s);
    if constexpr (kB.offset.type != Number::kNone) y = hn::Add(y, hn::Set(df, offset[GroupOf(kB.offset, kFirst)]));
    hn::StoreU(y, df, out + kFirst);
  }
}

constexpr bool MustSplit(const Block& b, int first, int n) {
  if (n > kMaxBytes) return true;
  for (const Field& f : b.codes)
    if (f.kind != FieldKind::kNone && AccessOf(f, first, n, n) == Access::kSplit) return true;
  return false;
}

// Eight consecutive sign bits, and the same as eight bytes of 0 or 255; with `even`, bit 7 becomes the parity of the rest.
template <Field kSign>
HWY_INLINE uint32_t ReadSigns8(const uint8_t* block, int first) {
  const int at = FirstBit(kSign, first);
  uint32_t v = block[at / 8];
  if constexpr (kSign.slot_step % 8 != 0 || kSign.start % 8 != 0) v |= uint32_t(block[at / 8 + 1]) << 8;
  return v >> at % 8 & 255;
}
HWY_INLINE uint64_t SignBytes(uint32_t bits, bool even) {
  if (even) {
    bits &= 127;
    const uint32_t p = bits ^ bits >> 4;
    bits |= (0x6996u >> (p & 15) & 1) << 7;
  }
  const uint64_t spread = (bits * 0x0101010101010101ull) & 0x8040201008040201ull;   // bit k in byte k
  return ((spread + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull) * 255;
}

// The grid as int8 vectors, one after another.
template <int kValues> struct GridRows {
  alignas(64) int8_t v[kValues] = {};
  constexpr explicit GridRows(const GridTable& grid) {
    for (int k = 0; k < kValues; ++k) v[k] = int8_t(GridValue(grid, k / grid.dim, k % grid.dim));
  }
};
// Grid formats: rows and signs of the whole block are laid out first (8-byte stores, read back much later as vectors).
template <const Block& kB>
HWY_INLINE void ExpandGrid(const uint8_t* HWY_RESTRICT block, int8_t* HWY_RESTRICT row,
                           uint64_t* HWY_RESTRICT minus) {
  static constexpr Block f = kB;
  static constexpr auto grid = GridRows<kB.map.grid->rows * kB.map.dim>(*kB.map.grid);
  constexpr int dim = kB.map.dim;
  for (int c = 0; c < kB.n / dim; ++c) {
    const int code = edgequant::ReadField(f.codes[0], block, c) | edgequant::ReadField(f.codes[1], block, c);
    memcpy(row + c * dim, grid.v + code * dim, dim);
  }
  for (int g = 0; g < kB.n / 8; ++g) minus[g] = SignBytes(ReadSigns8<kB.map.sign>(block, g * 8), kB.map.even_signs);
}
template <const Block& kB, int kFirst>
HWY_INLINE void EmitGrid(const int8_t* row, const uint64_t* minus, const float* scale, float* HWY_RESTRICT out) {
  if constexpr (kFirst < kB.n) {
    const hn::CappedTag<int8_t, kMaxBytes> d;
    const auto m = hn::BitCast(d, hn::Load(hn::Repartition<uint64_t, decltype(d)>(), minus + kFirst / 8));  // 0 or -1
    EmitBytes<kB, kFirst>(d, hn::Sub(hn::Xor(hn::Load(d, row + kFirst), m), m), scale, nullptr, out);
    EmitGrid<kB, kFirst + kMaxBytes>(row, minus, scale, out);
  }
}

template <const Block& kB, int kFirst, int kN>
HWY_INLINE void DecodeRun(const uint8_t* HWY_RESTRICT block, const float* HWY_RESTRICT scale, const float* HWY_RESTRICT offset,
                          float* HWY_RESTRICT out) {
  if constexpr (MustSplit(kB, kFirst, kN)) {
    DecodeRun<kB, kFirst, kN / 2>(block, scale, offset, out);
    DecodeRun<kB, kFirst + kN / 2, kN / 2>(block, scale, offset, out);
  } else {
    const Bytes<kN> d;
    const hn::RebindToSigned<decltype(d)> ds;
    auto code = ReadField<kB.codes[0], kFirst, kN, kN, kB.bytes>(block);
    if constexpr (kB.codes[1].kind != FieldKind::kNone) code = hn::Or(code, ReadField<kB.codes[1], kFirst, kN, kN, kB.bytes>(block));
    if constexpr (kB.codes[2].kind != FieldKind::kNone) code = hn::Or(code, ReadField<kB.codes[2], kFirst, kN, kN, kB.bytes>(block));
    if constexpr (kB.map.kind == MapKind::kTable) {
      static constexpr ByteTable table = ByteTableOf(kB.map);
      static_assert(table.ok, "tables of other values need a float lookup: not part of this spike");
      const auto t = hn::LoadDup128(ds, table.t.v);
      EmitBytes<kB, kFirst>(ds, hn::TableLookupBytes(t, hn::BitCast(ds, code)), scale, offset, out);
    } else if constexpr (kB.map.zero != 0 || kB.codes[0].is_signed) {
      EmitBytes<kB, kFirst>(ds, hn::Sub(hn::BitCast(ds, code), hn::Set(ds, int8_t(kB.map.zero))), scale, offset, out);
    } else {
      EmitBytes<kB, kFirst>(d, code, scale, offset, out);
    }
  }
}

constexpr float TableFactor(const Block& b) { return b.map.kind == MapKind::kTable ? ByteTableOf(b.map).factor : 1.0f; }
#endif  // HWY_TARGET != HWY_SCALAR

template <const Block& kB>
HWY_NOINLINE void DequantizeBlocks(const uint8_t* HWY_RESTRICT src, size_t blocks, float* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR  // Highway 1.0.3's x86-64 baseline with g++: one-lane vectors, no shuffles
  constexpr bool scalar = true;
#else
  constexpr bool scalar = kB.n == 1 || kB.map.shift != 0;
#endif
  if constexpr (scalar) {
    for (size_t b = 0; b < blocks; ++b, src += kB.bytes, out += kB.n)
      for (int i = 0; i < kB.n; ++i) out[i] = Decode<kB>(src, i);
  }
#if HWY_TARGET != HWY_SCALAR
  else {
    constexpr Level scale_level = [] { Level s = kB.scale; s.factor *= TableFactor(kB); return s; }();
    for (size_t b = 0; b < blocks; ++b, src += kB.bytes, out += kB.n) {
      alignas(64) float scale[16], offset[16];
      ExpandLevel<scale_level, kB.n, kB.bytes>(src, scale);
      if constexpr (kB.offset.type != Number::kNone) ExpandLevel<kB.offset, kB.n, kB.bytes>(src, offset);
      if constexpr (kB.map.kind == MapKind::kGrid) {
        alignas(64) int8_t row[kB.n];
        alignas(64) uint64_t minus[kB.n / 8];
        ExpandGrid<kB>(src, row, minus);
        EmitGrid<kB, 0>(row, minus, scale, out);
      } else {
        DecodeRun<kB, 0, kB.n>(src, scale, offset, out);
      }
    }
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_DEQUANTIZE_INL_H_
