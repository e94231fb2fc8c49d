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

// kFold: values are multiplied by the group's sub-scale, which `sub_scale` holds twice in each lane.
template <class C, bool kFold, int kFirst, int kSteps>
HWY_INLINE void DecodeSteps(UnitReader<C>& unit, const Table16& table, int zero, const Ints& sub_scale, size_t stride,
                            int8_t* HWY_RESTRICT out, Ints& sum) {
  static constexpr uint8_t k128[4] = {128, 128, 128, 128};
  [[maybe_unused]] const Quad offset = LoadQuad(k128);
  For<kSteps>([&](auto i) EDGEQUANT_UNROLLED {
    constexpr int step = kFirst + i;
    Line v = SignedValues<C>(unit.template Next<step>(), table, zero);
    if constexpr (kFold) v = TimesBytes(v, sub_scale);
    if constexpr (kUnsignedDot) sum = DotValues(sum, offset, v);
    StoreLine(v, out + step * stride);
  });
}

template <class C, bool kHalfUnits, bool kFold>
void DecodePanel(const PanelLayout& layout, const uint8_t* HWY_RESTRICT panel, size_t first, size_t count, int index,
                 const DecodedStrip& out) {
  const size_t per_header = size_t(layout.groups_per_header), columns = size_t(out.panels) * kPanelRows;
  const size_t stride = size_t(out.panels) * kPanelLine;
  const size_t at = size_t(index) * kPanelRows;
  int8_t* values = out.values + index * kPanelLine;
  const Table16 table = LoadTable(layout.values);
  for (size_t g = first; g < first + count;) {
    const size_t in_header = g % per_header, n = HWY_MIN(per_header - in_header, first + count - g);
    const uint8_t* HWY_RESTRICT header = panel + layout.HeaderAt(g);
    const size_t row = layout.two_level() ? (g - first) / per_header : g - first;  // of scales
    Ints start = SetInts(0);
    if (layout.two_level()) {
      StoreFloats(Times(FromF16(header), layout.fold < 0 ? -1.0f : 1.0f), out.scale + row * columns + at);
      for (size_t j = 0; j < n && !kFold; ++j)
        StoreInts(SubScale(layout, header, j), out.sub_scale + (g - first + j) * columns + at);
      if (layout.minima) {
        StoreFloats(Times(FromF16(header + 32), layout.min_factor / layout.factor), out.minimum + row * columns + at);
        for (size_t j = 0; j < n; j += 2)
          StoreInts(JoinPairs(SubMinimum(layout, header, j),
                              j + 1 < n ? SubMinimum(layout, header, j + 1) : SetInts(0)),
                    out.sub_minimum + (row * ((per_header + 1) / 2) + j / 2) * columns + at);
      }
    } else {
      ReadScales(layout, header, int(in_header), int(n), columns, out.scale + row * columns + at,
                 layout.minima ? out.minimum + row * columns + at : nullptr);
    }
    const auto finish = [&](const Ints& sum) EDGEQUANT_UNROLLED {
      if constexpr (kFold) start = Plus(start, sum);
      else if (layout.two_level()) start = TimesPlus(LoadInts(out.sub_scale + (g - first) * columns + at), sum, start);
      else StoreNegated(sum, out.start + (g - first) * columns + at);
      ++g;
    };
    const auto sub_scale = [&]() EDGEQUANT_UNROLLED {
      Ints s = SetInts(0);
      if constexpr (kFold) s = TimesPlus(SubScale(layout, header, g % per_header), SetInts(layout.fold), s);
      return JoinPairs(s, s);
    };
    const uint8_t* p = panel + layout.CodesAt(g);
    for (const size_t end = g + n; g < end;) {
      Ints sum = SetInts(0), fold = sub_scale();
      for (int u = 0; u < (kHalfUnits ? 1 : layout.group / kPanelUnit); ++u) {
        UnitReader<C> unit{p, {}, {}};
        DecodeSteps<C, kFold, 0, kHalfUnits ? 4 : 8>(unit, table, layout.zero, fold, stride, values, sum);
        if constexpr (kHalfUnits) {
          finish(sum);
          sum = SetInts(0);
          fold = sub_scale();
          DecodeSteps<C, kFold, 4, 4>(unit, table, layout.zero, fold, stride, values, sum);
        }
        p += C::kUnitBytes;
        values += 8 * stride;
      }
      finish(sum);
    }
    if (layout.two_level()) StoreNegated(start, out.start + row * columns + at);
  }
}

// Adds the products of `steps` steps; x and w move on.
template <int kPanels>
HWY_INLINE void DotGroup(int steps, const uint8_t* HWY_RESTRICT& x, const int8_t* HWY_RESTRICT& w,
                         Regs<Ints, kTileRows * kPanels>& sums) {
  for (int s = 0; s < steps; ++s) {
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
}
// The same 16 numbers per panel for all rows.
template <int kPanels>
HWY_INLINE void StartSums(const int32_t* HWY_RESTRICT start, Regs<Ints, kTileRows * kPanels>& sums) {
  For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
    const Ints s = LoadInts(start + v * kPanelRows);
    For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
      constexpr int at = r * kPanels + decltype(v)::value;
      sums.template At<at>() = s;
      Keep(sums.template At<at>());
    });
  });
}

// Number i of a tile's totals, which are in registers or in memory.
template <int i, class V, int kCount, class T>
HWY_INLINE V TotalOf(const Regs<V, kCount>& registers, [[maybe_unused]] const T* memory) {
  if constexpr (kSumsInRegisters) return registers.template At<i>();
  else if constexpr (std::is_same_v<T, float>) return LoadFloats(memory + i * kPanelRows);
  else return LoadInts(memory + i * kPanelRows);
}
template <int i, class V, int kCount, class T>
HWY_INLINE void SetTotal(const V& v, Regs<V, kCount>& registers, [[maybe_unused]] T* memory) {
  if constexpr (kSumsInRegisters) registers.template At<i>() = v;
  else if constexpr (std::is_same_v<T, float>) StoreFloats(v, memory + i * kPanelRows);
  else StoreInts(v, memory + i * kPanelRows);
}

// f(row constant, panel constant, number constant) for all numbers of a tile, panel by panel.
template <int kPanels, class F>
HWY_INLINE void ForTile(const F& f) {
  For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
    For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
      f(r, v, std::integral_constant<int, decltype(r)::value * kPanels + decltype(v)::value>());
    });
  });
}

// One level: float sums of all groups.
template <int kPanels, bool kMinima>
void MultiplyTile(const TileArgs& a) {
  constexpr int kColumns = kPanels * kPanelRows, kSums = kTileRows * kPanels;
  const uint8_t* HWY_RESTRICT x = a.x;
  const int8_t* HWY_RESTRICT w = a.strip->values;
  alignas(64) float memory[kSumsInRegisters ? 1 : kTileRows * kColumns];
  Regs<Floats, kSumsInRegisters ? kSums : 0> total;
  ForTile<kPanels>([&](auto, auto, auto i) EDGEQUANT_UNROLLED { SetTotal<i>(ZeroFloats(), total, memory); });
  for (int g = 0; g < a.groups; ++g) {
    Regs<Ints, kSums> sums;
    StartSums<kPanels>(a.strip->start + g * kColumns, sums);
    DotGroup<kPanels>(a.group / 4, x, w, sums);
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      const Floats scale = LoadFloats(a.strip->scale + g * kColumns + v * kPanelRows);
      Floats minimum;
      if constexpr (kMinima) minimum = LoadFloats(a.strip->minimum + g * kColumns + v * kPanelRows);
      For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
        constexpr int i = r * kPanels + decltype(v)::value;
        Floats t = TimesPlus(ToFloats(sums.template At<i>()), scale, TotalOf<i>(total, memory));
        if constexpr (kMinima) t = TimesPlus(minimum, a.x_sum[g * kTileRows + r], t);
        SetTotal<i>(t, total, memory);
      });
    });
  }
  ForTile<kPanels>([&](auto r, auto, auto i) EDGEQUANT_UNROLLED {
    float* y = a.y + i * kPanelRows;
    StoreFloats(TimesPlus(TotalOf<i>(total, memory), a.x_scale[r], LoadFloats(y)), y);
  });
}

// Two levels: sums of a header's groups stay integers, which on Zen 4 leaves the pipes of the dot products to them.
// Folded, a header is one group.
template <int kPanels, bool kMinima, bool kFold>
void MultiplyTwoLevelTile(const TileArgs& a) {
  constexpr int kColumns = kPanels * kPanelRows, kSums = kTileRows * kPanels;
  const uint8_t* HWY_RESTRICT x = a.x;
  const int8_t* HWY_RESTRICT w = a.strip->values;
  alignas(64) int32_t memory[kSumsInRegisters ? 1 : kTileRows * kColumns];
  const int headers = a.groups / a.groups_per_header, pairs = (a.groups_per_header + 1) / 2;
  for (int h = 0; h < headers; ++h) {
    Regs<Ints, kSumsInRegisters ? kSums : 0> total;
    Regs<Ints, kSums> start;
    StartSums<kPanels>(a.strip->start + h * kColumns, start);
    if constexpr (kFold) DotGroup<kPanels>(a.groups_per_header * a.group / 4, x, w, start);
    ForTile<kPanels>(
        [&](auto, auto, auto i) EDGEQUANT_UNROLLED { SetTotal<i>(start.template At<i>(), total, memory); });
    const int32_t* HWY_RESTRICT sub_scale = a.strip->sub_scale + h * a.groups_per_header * kColumns;
    for (int g = 0; g < a.groups_per_header && !kFold; ++g, sub_scale += kColumns) {
      Regs<Ints, kSums> sums;
      ForTile<kPanels>([&](auto, auto, auto i) EDGEQUANT_UNROLLED { sums.template At<i>() = SetInts(0); });
      DotGroup<kPanels>(a.group / 4, x, w, sums);
      For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
        const Ints scale = LoadInts(sub_scale + v * kPanelRows);
        For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
          constexpr int i = r * kPanels + decltype(v)::value;
          SetTotal<i>(TimesPlus(scale, sums.template At<i>(), TotalOf<i>(total, memory)), total, memory);
        });
      });
    }
    Regs<Ints, kMinima ? kSums : 0> low;
    if constexpr (kMinima) {
      ForTile<kPanels>([&](auto, auto, auto i) EDGEQUANT_UNROLLED { low.template At<i>() = SetInts(0); });
      for (int p = h * pairs; p < (h + 1) * pairs; ++p)
        For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
          const Ints minimum = LoadInts(a.strip->sub_minimum + p * kColumns + v * kPanelRows);
          For<kTileRows>([&](auto r) EDGEQUANT_UNROLLED {
            Ints& sum = low.template At<r * kPanels + decltype(v)::value>();
            sum = DotPairs(sum, minimum, a.x_pair[p * kTileRows + r]);
          });
        });
    }
    ForTile<kPanels>([&](auto r, auto v, auto i) EDGEQUANT_UNROLLED {
      const int column = h * kColumns + v * kPanelRows;
      float* y = a.y + i * kPanelRows;
      Floats t = Times(ToFloats(TotalOf<i>(total, memory)), LoadFloats(a.strip->scale + column));
      if constexpr (kMinima) t = TimesPlus(ToFloats(low.template At<i>()), LoadFloats(a.strip->minimum + column), t);
      StoreFloats(TimesPlus(t, a.x_scale[r], LoadFloats(y)), y);
    });
  }
}

template <class C, bool kFold>
DecodeFn PickDecode(const PanelLayout& layout) {
  return layout.group < kPanelUnit ? DecodePanel<C, true, kFold> : DecodePanel<C, false, kFold>;
}
template <int kBits, bool kTable>
DecodeFn PickDecode(const PanelLayout& layout) {
  using C = Codes<kBits, kTable>;
  if constexpr (kBits > 1 && kBits <= 4)
    if (layout.fold != 0) return PickDecode<C, true>(layout);
  return PickDecode<C, false>(layout);
}
template <int kPanels, bool kMinima>
TileFn PickTile(const PanelLayout& layout) {
  if (!layout.two_level()) return MultiplyTile<kPanels, kMinima>;
  return layout.fold != 0 ? MultiplyTwoLevelTile<kPanels, kMinima, true>
                          : MultiplyTwoLevelTile<kPanels, kMinima, false>;
}
template <int kPanels>
TileFn PickTile(const PanelLayout& layout) {
  if constexpr (kPanels > kStripPanels) return nullptr;
  else return layout.minima ? PickTile<kPanels, true>(layout) : PickTile<kPanels, false>(layout);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_GEMM_INL_H_
