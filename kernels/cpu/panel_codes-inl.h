// Reading panels: the codes of a unit, line by line, and the scales of a header.
#if defined(EDGEQUANT_PANEL_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_PANEL_CODES_INL_H_
#undef EDGEQUANT_PANEL_CODES_INL_H_
#else
#define EDGEQUANT_PANEL_CODES_INL_H_
#endif

#include "kernels/cpu/panel_lines-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

// How far ahead of their use lines are prefetched, in bytes.
constexpr int kAhead = 4096;

// What the codes of a panel are, at compile time.
template <int kBitsPerCode, bool kHasTable, DotUnit kUnit = DotUnit::kNone>
struct Codes {
  static constexpr int kBits = kBitsPerCode;
  static constexpr bool kTable = kHasTable;
  static constexpr DotUnit kDot = kUnit;
  static constexpr int kLow = kBits >= 8 ? 8 : kBits >= 4 ? 4 : kBits >= 2 ? 2 : 1;
  static constexpr int kHigh = kBits - kLow;
  static constexpr int kUnitBytes = kBits * kPanelLine;
  static constexpr bool kSmall = !kTable && kBits < 8;  // codes are unsigned and below 128
};

// The 8 lines of codes of one unit, in order; a plane's line is loaded once and shifted.
template <class C>
struct UnitReader {
  const uint8_t* HWY_RESTRICT p;
  Line low, high;
  template <int step>
  HWY_INLINE Line Next() {
    constexpr int low_per_line = 8 / C::kLow;
    if constexpr (step % low_per_line == 0) low = LoadLine(p + step / low_per_line * kPanelLine);
    if constexpr (C::kBits == 1) return BitsOf<1, step, 1>(low);  // twice the bit
    Line v = BitsOf<C::kLow, C::kLow*(step % low_per_line), 0>(low);
    if constexpr (C::kHigh != 0) {
      constexpr int high_per_line = 8 / (C::kHigh != 0 ? C::kHigh : 1);
      if constexpr (step % high_per_line == 0) high = LoadLine(p + (C::kLow + step / high_per_line) * kPanelLine);
      v = WithBitsOf<C::kHigh, C::kHigh*(step % high_per_line), C::kLow>(v, high);
    }
    return v;
  }
  // The same for single bits; those of odd steps are doubled, as are all that Next has.
  template <int step>
  HWY_INLINE Line NextOfPair() {
    if constexpr (step == 0) low = LoadLine(p);
    if constexpr (step % 2 == 0) high = Down<step>(low);
    return BitsOf<1, step % 2, step % 2>(high);
  }
};

HWY_INLINE Table16 OperandTable(const PanelLayout& layout) {
  const Table16 t = LoadTable(layout.values);
  return kUnsignedDot ? FlipTops(t) : t;
}
// From codes to what DotCodes takes.
template <class C>
HWY_INLINE Line OperandOf(const Line& codes, [[maybe_unused]] const Table16& table) {
  if constexpr (C::kTable) return LookUp(table, codes);
  else if constexpr (C::kBits == 8 && kUnsignedDot) return FlipTops(codes);
  else return codes;
}

// Scales, and minima if there are any, of groups [first, first + count) of the header at p: 16 floats per group,
// `stride` apart. Aligned. For layouts with one level.
HWY_INLINE void ReadScales(const PanelLayout& layout, const uint8_t* HWY_RESTRICT p, int first, int count,
                           size_t stride, float* HWY_RESTRICT scale, float* HWY_RESTRICT minimum) {
  const auto read = [&](const auto& decode, size_t bytes, float* HWY_RESTRICT out) EDGEQUANT_UNROLLED {
    for (int g = 0; g < count; ++g, out += stride) StoreFloats(decode(p + bytes * size_t(first + g)), out);
  };
  if (layout.scale == PanelScale::kE8M0) return read(FromE8M0, 16, scale);
  if (layout.scale == PanelScale::kUE4M3) return read(FromUE4M3, 16, scale);
  const auto read_both = [&](const auto& decode, size_t bytes) EDGEQUANT_UNROLLED {
    read(decode, bytes, scale);
    if (layout.minima) p += 2 * bytes, read(decode, bytes, minimum);
  };
  if (layout.scale == PanelScale::kF16) read_both(FromF16, 32);
  else if (layout.scale == PanelScale::kBF16) read_both(FromBF16, 32);
  else read_both(FromF32, 64);
  for (int g = 0; g < count && layout.minima_in_scales; ++g)
    StoreFloats(Times(LoadFloats(minimum + size_t(g) * stride), LoadFloats(scale + size_t(g) * stride)),
                minimum + size_t(g) * stride);
}

// Layouts with two levels: the integers of group g of the header at p.
HWY_INLINE Ints SubScale(const PanelLayout& layout, const uint8_t* HWY_RESTRICT p, size_t g) {
  if (layout.scale == PanelScale::kNibble) return LowNibble(LoadBytes(p + 64 + 16 * g));
  const Ints code = LoadSignedBytes(p + 64 + 16 * g);
  return layout.scale == PanelScale::kSign ? Magnitude(code) : code;
}
HWY_INLINE Ints SubMinimum(const PanelLayout& layout, const uint8_t* HWY_RESTRICT p, size_t g) {
  if (layout.scale == PanelScale::kNibble) return HighNibble(LoadBytes(p + 64 + 16 * g));
  return LoadSignedBytes(p + 64 + 16 * (layout.scale == PanelScale::kSign ? g : size_t(layout.groups_per_header) + g));
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_PANEL_CODES_INL_H_
