// Highway decoder for every described format: the description is a template argument, so all offsets, shifts and
// masks fold to constants. Codes are read as bytes, mapped to signed bytes, and become floats when they are stored.
#if defined(EDGEQUANT_DEQUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_DEQUANTIZE_INL_H_
#undef EDGEQUANT_DEQUANTIZE_INL_H_
#else
#define EDGEQUANT_DEQUANTIZE_INL_H_
#endif

#include "format/catalog.h"
#include "kernels/cpu/field-inl.h"
#include "kernels/cpu/byte_maps.h"
#include "kernels/cpu/compat.h"
#include "kernels/cpu/grid_rows-inl.h"
#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/level-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
constexpr int kMaxBytes = HWY_MIN(64, int(hn::MaxLanes(hn::ScalableTag<uint8_t>())));
constexpr int kMaxFloats = HWY_MIN(16, int(hn::MaxLanes(hn::ScalableTag<float>())));

// The scales and minima of one block.
struct Levels {
  alignas(64) float scale[kMaxGroups];
  alignas(64) float offset[kMaxGroups];
};

// Stores weights kFirst and following from their signed (or unsigned) bytes.
template <const Block& kB, int kFirst, class D, class V>
HWY_INLINE void StoreWeights(D, V v, const Levels& levels, float* HWY_RESTRICT out) {
  constexpr int n = int(hn::MaxLanes(D()));
  if constexpr (n > kMaxFloats) {
    const hn::Half<D> half;
    StoreWeights<kB, kFirst>(half, hn::LowerHalf(half, v), levels, out);
    StoreWeights<kB, kFirst + n / 2>(half, hn::UpperHalf(half, v), levels, out);
  } else {
    const hn::CappedTag<float, n> df;
    const hn::RebindToSigned<decltype(df)> di;
    const auto scale = hn::Set(df, levels.scale[GroupOf(kB.scale, kFirst)]);
    const auto x = hn::ConvertTo(df, hn::PromoteTo(di, v));
    if constexpr (kB.offset.type == Number::kNone) {
      hn::StoreU(hn::Mul(x, scale), df, out + kFirst);
    } else {
      const auto offset = hn::Set(df, levels.offset[GroupOf(kB.offset, kFirst)]);
      hn::StoreU(ProductIsExact(kB) ? hn::MulAdd(x, scale, offset) : hn::Add(hn::Mul(x, scale), offset), df,
                 out + kFirst);
    }
  }
}

// ---- Affine and table formats

constexpr bool MustSplit(const Block& b, int first, int n) {
  if (n > kMaxBytes) return true;
  for (const Field& f : b.codes)
    if (f.kind != FieldKind::kNone && AccessOf(f, first, n, n) == Access::kSplit) return true;
  return false;
}

template <const Block& kB, int kFirst, int kN>
HWY_INLINE void DecodeRun(const uint8_t* HWY_RESTRICT block, const Levels& levels, float* HWY_RESTRICT out) {
  if constexpr (MustSplit(kB, kFirst, kN)) {
    DecodeRun<kB, kFirst, kN / 2>(block, levels, out);
    DecodeRun<kB, kFirst + kN / 2, kN / 2>(block, levels, out);
  } else {
    const ByteTag<kN> d;
    const hn::RebindToSigned<decltype(d)> ds;
    const auto code = ReadCodes<kB, kFirst, kN>(block);
    if constexpr (kB.map.kind == MapKind::kTable) {
      static constexpr ByteTable table = ByteTableOf(kB.map);
      static_assert(table.ok, "a table of other values than small multiples of 1/4 needs a kernel of its own");
      const auto values = hn::TableLookupBytes(hn::LoadDup128(ds, table.values), hn::BitCast(ds, code));
      StoreWeights<kB, kFirst>(ds, values, levels, out);
    } else if constexpr (kB.map.zero != 0 || kB.codes[0].is_signed) {
      StoreWeights<kB, kFirst>(ds, hn::Sub(hn::BitCast(ds, code), hn::Set(ds, int8_t(kB.map.zero))), levels, out);
    } else {
      StoreWeights<kB, kFirst>(d, code, levels, out);
    }
  }
}

// ---- Grid formats: the rows of whole blocks are laid out first, and read back as vectors.

// One byte of 8 bits per 8 weights: their signs, or eight times the direction of their shift.
template <const Block& kB>
HWY_INLINE void ReadMinuses(const uint8_t* HWY_RESTRICT block, uint8_t* HWY_RESTRICT minus) {
  static_assert(kB.n % 128 == 0);
  const ByteTag<16> d;
  const auto read = [&](auto first) EDGEQUANT_UNROLLED {
    constexpr int at = decltype(first)::value;
    if constexpr (kB.map.shift != 0) {
      const auto bit = ReadField<kB.map.shift_sign, at, 16, 16, kB.bytes>(block);
      hn::Store(hn::Sub(hn::Zero(d), bit), d, minus + at);
    } else {
      auto bits = ReadField<kB.map.signs, at, 16, 16, kB.bytes>(block);
      if constexpr (kB.map.signs.bits == 7) {
        // Bit 7 is the parity of the others: both nibbles are folded to one, which a table answers.
        alignas(16) static constexpr uint8_t parity[16] = {0,   128, 128, 0,   128, 0,   0,   128,
                                                           128, 0,   0,   128, 0,   128, 128, 0};
        const auto nibble = hn::And(hn::Xor(bits, BitsRight<4>(d, bits)), hn::Set(d, uint8_t{15}));
        bits = hn::Or(bits, hn::TableLookupBytes(hn::Load(d, parity), nibble));
      }
      hn::Store(bits, d, minus + at);
    }
  };
  ForEach<kB.n / 128, 16>(read);
}

// Scales (and rows of grids) are prepared for a few blocks at a time, so that their small stores are long done when
// they are loaded again.
template <const Block& kB>
constexpr int kAhead = kB.n < 256 ? 1 : 4;

template <const Block& kB, bool kIsGrid = kB.map.kind == MapKind::kGrid>
struct Prepared {
  Levels levels[kAhead<kB>];
};
template <const Block& kB>
struct Prepared<kB, true> {
  Levels levels[kAhead<kB>];
  alignas(64) int8_t rows[kAhead<kB>][kB.n];
  alignas(64) uint8_t minus[kAhead<kB>][kB.n / 8 + 32];  // mask bits are loaded eight bytes at a time
};

template <const Block& kB>
HWY_INLINE void Prepare(const uint8_t* HWY_RESTRICT src, int count, Prepared<kB>& p) {
  for (int b = 0; b < count; ++b) {
    const uint8_t* block = src + b * kB.bytes;
    constexpr Level scale = ScaleOfBytes(kB);
    ExpandLevel<scale, kB.n, kB.bytes>(block, p.levels[b].scale);
    if constexpr (kB.offset.type != Number::kNone)
      ExpandLevel<kB.offset, kB.n, kB.bytes>(block, p.levels[b].offset);
    if constexpr (kB.map.kind == MapKind::kGrid) ReadMinuses<kB>(block, p.minus[b]);
  }
  if constexpr (kB.map.kind == MapKind::kGrid) ReadRows<kB, kAhead<kB>>(src, count, p.rows[0]);
}

template <const Block& kB>
HWY_INLINE void StoreBlock(const uint8_t* HWY_RESTRICT block, const Prepared<kB>& p, int b, float* HWY_RESTRICT out) {
  if constexpr (kB.map.kind != MapKind::kGrid) {
    DecodeRun<kB, 0, kB.n>(block, p.levels[b], out);
  } else {
    const hn::CappedTag<int8_t, kMaxBytes> d;
    ForEach<kB.n / kMaxBytes, kMaxBytes>([&](auto first) EDGEQUANT_UNROLLED {
      constexpr int at = decltype(first)::value;
      const auto row = hn::Load(d, p.rows[b] + at);
      const auto mask = hn::LoadMaskBits(d, p.minus[b] + at / 8);
      // A shifted row is stored moved up; down is two steps lower.
      const auto other = kB.map.shift != 0 ? hn::Sub(row, hn::Set(d, int8_t{2})) : hn::Neg(row);
      StoreWeights<kB, at>(d, hn::IfThenElse(mask, other, row), p.levels[b], out);
    });
  }
}
#endif  // HWY_TARGET != HWY_SCALAR

// ---- Plain numbers

template <const Block& kB>
HWY_INLINE void DecodeNumbers(const uint8_t* HWY_RESTRICT src, size_t count, float* HWY_RESTRICT out) {
  size_t k = 0;
  if constexpr (kB.scale.type == Number::kF32) {
    if (count != 0) memcpy(out, src, count * sizeof(float));  // no bytes may come from a null pointer
    return;
  }
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, kMaxFloats> df;
  const hn::Rebind<uint16_t, decltype(df)> d16;
  const size_t lanes = hn::Lanes(df);
  for (; k + lanes <= count; k += lanes) {
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(src) + k);
    if constexpr (kB.scale.type == Number::kF16)
      hn::StoreU(PromoteF16(df, bits), df, out + k);
    else
      hn::StoreU(PromoteBF16(df, bits), df, out + k);
  }
#endif
  for (; k < count; ++k) out[k] = Decode<kB>(src + k * kB.bytes, 0);
}

template <const Block& kB>
HWY_NOINLINE void DecodeBlocks(const uint8_t* HWY_RESTRICT src, size_t blocks, float* HWY_RESTRICT out) {
  if constexpr (FamilyOf(kB) == Family::kNumber) return DecodeNumbers<kB>(src, blocks, out);
#if HWY_TARGET == HWY_SCALAR  // the x86-64 baseline of older Highway with g++: one-lane vectors, no shuffles
  for (size_t b = 0; b < blocks; ++b, src += kB.bytes, out += kB.n)
    for (int i = 0; i < kB.n; ++i) out[i] = Decode<kB>(src, i);
#else
  Prepared<kB> prepared;
  for (size_t left = blocks; left != 0;) {
    const int count = int(HWY_MIN(left, size_t(kAhead<kB>)));
    Prepare<kB>(src, count, prepared);
    for (int b = 0; b < count; ++b, src += kB.bytes, out += kB.n) StoreBlock<kB>(src, prepared, b, out);
    left -= size_t(count);
  }
#endif
}

// All formats of one family.
template <Family kFamily, FormatId kId>
HWY_INLINE void DecodeIfOf(const uint8_t* HWY_RESTRICT src, size_t blocks, float* HWY_RESTRICT out) {
  if constexpr (FamilyOf(BlockOf(kId)) == kFamily) DecodeBlocks<BlockOf(kId)>(src, blocks, out);
}
template <Family kFamily>
HWY_INLINE void DecodeFamily(FormatId id, const uint8_t* HWY_RESTRICT src, size_t blocks, float* HWY_RESTRICT out) {
  switch (id) {
#define EDGEQUANT_X(id, name, block, gguf) \
  case FormatId::k##id: return DecodeIfOf<kFamily, FormatId::k##id>(src, blocks, out);
    EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_DEQUANTIZE_INL_H_
