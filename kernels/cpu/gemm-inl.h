// Strip decoder and integer tile.
#if defined(EDGEQUANT_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GEMM_INL_H_
#undef EDGEQUANT_GEMM_INL_H_
#else
#define EDGEQUANT_GEMM_INL_H_
#endif

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/panel_codes-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

// With one register per 16 columns, a tile of 4 x 48 and its float sums just fit 32 registers.
constexpr int kStripPanels = kParts == 1 ? kMaxStripPanels : 1;
constexpr bool kSumsInRegisters = kParts == 1;

template <class C>
HWY_INLINE Line SignedValues(const Line& codes, [[maybe_unused]] const Table16& table, [[maybe_unused]] int zero) {
  if constexpr (C::kTable) return LookUp(table, codes);
  else return Minus(codes, zero);
}

template <class C, int kFirst, int kSteps>
HWY_INLINE void DecodeSteps(UnitReader<C>& unit, const Table16& table, int zero, size_t stride,
                            int8_t* HWY_RESTRICT out, Ints& sum) {
  static constexpr uint8_t k128[4] = {128, 128, 128, 128};
  [[maybe_unused]] const Quad offset = LoadQuad(k128);
  For<kSteps>([&](auto i) EDGEQUANT_UNROLLED {
    constexpr int step = kFirst + i;
    const Line v = SignedValues<C>(unit.template Next<step>(), table, zero);
    if constexpr (kUnsignedDot) sum = DotValues(sum, offset, v);
    StoreLine(v, out + step * stride);
  });
}

template <class C, bool kHalfUnits>
void DecodePanel(const PanelLayout& layout, const uint8_t* HWY_RESTRICT panel, size_t first, size_t count, int index,
                 const DecodedStrip& out) {
  const size_t per_header = size_t(layout.groups_per_header), columns = size_t(out.panels) * kPanelRows;
  const size_t stride = size_t(out.panels) * kPanelLine;
  const size_t at = size_t(index) * kPanelRows;
  int8_t* values = out.values + index * kPanelLine;
  const Table16 table = LoadTable(layout.values);
  for (size_t g = first; g < first + count;) {
    const size_t in_header = g % per_header, n = HWY_MIN(per_header - in_header, first + count - g);
    float* scale = out.scale + (g - first) * columns + at;
    float* minimum = layout.minima ? out.minimum + (g - first) * columns + at : nullptr;
    ReadScales(layout, panel + layout.HeaderAt(g), int(in_header), int(n), columns, scale, minimum);
    const uint8_t* p = panel + layout.CodesAt(g);
    for (const size_t end = g + n; g < end;) {
      Ints sum = SetInts(0);
      for (int u = 0; u < (kHalfUnits ? 1 : layout.group / kPanelUnit); ++u) {
        UnitReader<C> unit{p, {}, {}};
        DecodeSteps<C, 0, kHalfUnits ? 4 : 8>(unit, table, layout.zero, stride, values, sum);
        if constexpr (kHalfUnits) {
          StoreNegated(sum, out.start + (g - first) * columns + at);
          ++g;
          sum = SetInts(0);
          DecodeSteps<C, 4, 4>(unit, table, layout.zero, stride, values, sum);
        }
        p += C::kUnitBytes;
        values += 8 * stride;
      }
      StoreNegated(sum, out.start + (g - first) * columns + at);
      ++g;
    }
  }
}

template <int kPanels, bool kMinima>
void MultiplyTile(const TileArgs& a) {
  constexpr int kColumns = kPanels * kPanelRows, kSums = kTileRows * kPanels;
  const uint8_t* HWY_RESTRICT x = a.x;
  const int8_t* HWY_RESTRICT w = a.strip->values;
  const float* HWY_RESTRICT scale = a.strip->scale;
  const float* HWY_RESTRICT minimum = a.strip->minimum;
  const float* HWY_RESTRICT x_sum = a.x_sum;
  const int32_t* HWY_RESTRICT start = a.strip->start;
  alignas(64) float memory[kSumsInRegisters ? 1 : kTileRows * kColumns];
  Regs<Floats, kSumsInRegisters ? kSums : 0> total;
  if constexpr (kSumsInRegisters) For<kSums>([&](auto i) EDGEQUANT_UNROLLED { total.template At<i>() = ZeroFloats(); });
  else memset(memory, 0, sizeof memory);

  for (int g = 0; g < a.groups; ++g) {
    Regs<Ints, kSums> sums;
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      const Ints s = LoadInts(start + v * kPanelRows);
      For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
        constexpr int at = r * kPanels + decltype(v)::value;
        sums.template At<at>() = s;
        Keep(sums.template At<at>());
      });
    });
    for (int s = 0; s < a.group / 4; ++s) {
      Regs<Line, kPanels> values;
      For<kPanels>([&](auto v) EDGEQUANT_UNROLLED { values.template At<v>() = LoadLine(w + v * kPanelLine); });
      For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
        const Quad quad = LoadQuad(x + r * 4);
        For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
          Ints& sum = sums.template At<decltype(r)::value * kPanels + v>();
          sum = DotValues(sum, quad, values.template At<v>());
        });
      });
      x += kTileRows * 4;
      w += kPanels * kPanelLine;
    }
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      const Floats s = LoadFloats(scale + v * kPanelRows);
      Floats m;
      if constexpr (kMinima) m = LoadFloats(minimum + v * kPanelRows);
      For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
        constexpr int at = r * kPanels + decltype(v)::value;
        Floats t;
        if constexpr (kSumsInRegisters) t = total.template At<at>();
        else t = LoadFloats(memory + at * kPanelRows);
        t = TimesPlus(ToFloats(sums.template At<at>()), s, t);
        if constexpr (kMinima) t = TimesPlus(m, x_sum[r], t);
        if constexpr (kSumsInRegisters) total.template At<at>() = t;
        else StoreFloats(t, memory + at * kPanelRows);
      });
    });
    scale += kColumns;
    if constexpr (kMinima) minimum += kColumns;
    start += kColumns;
    x_sum += kTileRows;
  }
  For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      constexpr int at = decltype(r)::value * kPanels + v;
      float* y = a.y + at * kPanelRows;
      Floats t;
      if constexpr (kSumsInRegisters) t = total.template At<at>();
      else t = LoadFloats(memory + at * kPanelRows);
      StoreFloats(TimesPlus(t, a.x_scale[r], LoadFloats(y)), y);
    });
  });
}

template <int kBits, bool kTable>
DecodeFn PickDecode(const PanelLayout& layout) {
  return layout.group < kPanelUnit ? DecodePanel<Codes<kBits, kTable>, true> : DecodePanel<Codes<kBits, kTable>, false>;
}
template <int kPanels>
TileFn PickTile(bool minima) {
  if constexpr (kPanels > kStripPanels) return nullptr;
  else return minima ? MultiplyTile<kPanels, true> : MultiplyTile<kPanels, false>;
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_GEMM_INL_H_
