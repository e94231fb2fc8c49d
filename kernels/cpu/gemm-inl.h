// Strip decoder and integer tile.
#if defined(EDGEQUANT_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GEMM_INL_H_
#undef EDGEQUANT_GEMM_INL_H_
#else
#define EDGEQUANT_GEMM_INL_H_
#endif

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/tile_lines-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

constexpr bool kSumsInRegisters = kParts == 1;

// Scales and minima of groups [first, first + count) of panel number `index`.
HWY_NOINLINE void DecodeScales(const PanelLayout& layout, const uint8_t* HWY_RESTRICT panel, size_t first, size_t count,
                               int index, const DecodedStrip& out) {
  const size_t per_header = size_t(layout.groups_per_header), columns = size_t(out.panels) * kPanelRows;
  const size_t header_stride = layout.HeaderAt(per_header), at = size_t(index) * kPanelRows;
  const uint8_t* HWY_RESTRICT header = panel + layout.HeaderAt(first);
  float *HWY_RESTRICT scale = out.scale + at, *HWY_RESTRICT minimum = out.minimum + at;
  if (!layout.two_level()) {
    for (size_t in_header = first % per_header; count > 0; in_header = 0, header += header_stride) {
      const size_t n = HWY_MIN(per_header - in_header, count);
      ReadScales(layout, header, int(in_header), int(n), columns, scale, minimum);
      scale += n * columns, minimum += n * columns, count -= n;
    }
    return;
  }
  const float sign = layout.fold < 0 ? -1.0f : 1.0f, min_ratio = layout.min_factor / layout.factor;
  int32_t *HWY_RESTRICT sub_scale = out.sub_scale + at, *HWY_RESTRICT sub_minimum = out.sub_minimum + at;
  for (; count > 0; count -= HWY_MIN(per_header, count), header += header_stride) {
    StoreFloats(Times(FromF16(header), sign), scale);
    scale += columns;
    for (size_t g = 0; g < per_header && layout.fold == 0; ++g, sub_scale += columns)
      StoreInts(SubScale(layout, header, g), sub_scale);
    if (!layout.minima) continue;
    StoreFloats(Times(FromF16(header + 32), min_ratio), minimum);
    minimum += columns;
    for (size_t g = 0; g < per_header; g += 2, sub_minimum += columns)
      StoreInts(JoinPairs(SubMinimum(layout, header, g),
                          g + 1 < per_header ? SubMinimum(layout, header, g + 1) : SetInts(0)),
                sub_minimum);
  }
}

// The integer that a folded layout multiplies the codes of group g by, twice in each lane.
HWY_INLINE Ints FoldedScale(const PanelLayout& layout, const uint8_t* HWY_RESTRICT header, size_t g) {
  const Ints scale = TimesPlus(SubScale(layout, header, g), SetInts(layout.fold), SetInts(0));
  return JoinPairs(scale, scale);
}

template <class C, bool kFold, int kFirst, int kSteps>
HWY_INLINE void DecodeSteps(UnitReader<C>& unit, const Table16& table, [[maybe_unused]] int zero,
                            [[maybe_unused]] const Ints& folded, StripWriter& out) {
  For<kSteps>([&](auto i) EDGEQUANT_UNROLLED {
    constexpr int step = kFirst + i;
    const Line codes = unit.template Next<step>();
    if constexpr (!kFold) {
      out.Put<step>(OperandOf<C>(codes, table));
    } else {
      Line v = codes;
      if constexpr (C::kTable) v = LookUp(table, codes);
      else v = Minus(codes, zero);
      v = TimesBytes(v, folded);
      out.Put<step>(kUnsignedDot ? FlipTops(v) : v);
    }
  });
}

template <class C, bool kFold>
void DecodePanel(const PanelLayout& layout, const uint8_t* HWY_RESTRICT panel, size_t first, size_t count, int index,
                 const DecodedStrip& out) {
  const size_t per_header = size_t(layout.groups_per_header), header_bytes = layout.header_bytes();
  const size_t group = size_t(layout.group);
  const int zero = layout.zero;
  const Table16 table = kFold ? LoadTable(layout.values) : OperandTable(layout);
  const uint8_t* HWY_RESTRICT p = panel + layout.CodesAt(first);
  StripWriter values(out, index);
  DecodeScales(layout, panel, first, count, index, out);
  for (size_t before = first % per_header; count > 0; before = 0, p += header_bytes) {
    const size_t n = HWY_MIN(per_header - before, count);
    const uint8_t* HWY_RESTRICT header = p - header_bytes;  // of two levels, which begin with one
    for (size_t k = 0; k < n * group; k += kPanelUnit) {
      UnitReader<C> unit{p, {}, {}};
      Ints folded;
      if constexpr (kFold) folded = FoldedScale(layout, header, k / group);
      DecodeSteps<C, kFold, 0, 4>(unit, table, zero, folded, values);
      if constexpr (kFold) folded = FoldedScale(layout, header, (k + kPanelUnit / 2) / group);
      DecodeSteps<C, kFold, 4, 4>(unit, table, zero, folded, values);
      p += C::kUnitBytes;
      values.Advance(8);
    }
    count -= n;
  }
}

// Weights that are decoded next, brought into the cache while a tile is multiplied: a piece of each panel per step.
template <int kPanels>
struct Ahead {
  const uint8_t* p;
  size_t stride, step;
  HWY_INLINE void Next() {
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED { __builtin_prefetch(p + v * stride, 0, 2); });
    p += step;
  }
};

// Adds the products of `steps` steps; x, w and `ahead` move on.
template <DotUnit kDot, int kRows, int kPanels>
HWY_INLINE void DotGroup(int steps, const uint8_t* HWY_RESTRICT& x, const int8_t* HWY_RESTRICT& w,
                         Ahead<kPanels>& ahead, Regs<Ints, kRows * kPanels>& sums) {
  const int8_t* const end = w + steps * (kPanels * kPanelLine);
  TurnTile<kDot, kRows, kPanels>(sums);
  do {
    For<kTileSteps<kDot>>([&](auto) EDGEQUANT_UNROLLED { ahead.Next(); });
    DotTile<kDot, kRows, kPanels>(x, w, sums);
    x += kTileSteps<kDot> * kTileRows * 4;
    w += kTileSteps<kDot> * kPanels * kPanelLine;
  } while (w != end);
  TurnTile<kDot, kRows, kPanels>(sums);
}
// A number per row, for all columns.
template <int kRows, int kPanels>
HWY_INLINE void StartSums(const int32_t* HWY_RESTRICT start, Regs<Ints, kRows * kPanels>& sums) {
  For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
    const Ints s = SetInts(start[r]);
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      constexpr int at = decltype(r)::value * kPanels + v;
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
template <int kRows, int kPanels, class F>
HWY_INLINE void ForTile(const F& f) {
  For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
    For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
      f(r, v, std::integral_constant<int, decltype(r)::value * kPanels + decltype(v)::value>());
    });
  });
}

// One level: float sums of all groups.
template <DotUnit kDot, int kRows, int kPanels, bool kMinima>
void MultiplyTile(const TileArgs& a) {
  constexpr int kColumns = kPanels * kPanelRows, kSums = kRows * kPanels;
  const uint8_t* HWY_RESTRICT x = a.x;
  const int8_t* HWY_RESTRICT w = a.strip->values;
  Ahead<kPanels> ahead{a.ahead, a.ahead_stride, a.ahead_step};
  alignas(64) float memory[kSumsInRegisters ? 1 : kRows * kColumns];
  Regs<Floats, kSumsInRegisters ? kSums : 0> total;
  ForTile<kRows, kPanels>([&](auto, auto, auto i) EDGEQUANT_UNROLLED { SetTotal<i>(ZeroFloats(), total, memory); });
  for (int g = 0; g < a.groups; ++g) {
    Regs<Ints, kSums> sums;
    StartSums<kRows, kPanels>(a.x_start + g * kTileRows, sums);
    DotGroup<kDot, kRows, kPanels>(a.group / 4, x, w, ahead, sums);
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      const Floats scale = LoadFloats(a.strip->scale + g * kColumns + v * kPanelRows);
      Floats minimum;
      if constexpr (kMinima) minimum = LoadFloats(a.strip->minimum + g * kColumns + v * kPanelRows);
      For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
        constexpr int i = r * kPanels + decltype(v)::value;
        Floats t = TimesPlus(ToFloats(sums.template At<i>()), scale, TotalOf<i>(total, memory));
        if constexpr (kMinima) t = TimesPlus(minimum, a.x_sum[g * kTileRows + r], t);
        SetTotal<i>(t, total, memory);
      });
    });
  }
  float* const y = a.y;
  const float* HWY_RESTRICT x_scale = a.x_scale;
  ForTile<kRows, kPanels>([&](auto r, auto, auto i) EDGEQUANT_UNROLLED {
    float* out = y + i * kPanelRows;
    StoreFloats(TimesPlus(TotalOf<i>(total, memory), x_scale[r], LoadFloats(out)), out);
  });
}

// Two levels: sums of a header's groups stay integers, which on Zen 4 leaves the pipes of the dot products to them.
// Folded, a header is one group.
template <DotUnit kDot, int kRows, int kPanels, bool kMinima, bool kFold>
void MultiplyTwoLevelTile(const TileArgs& a) {
  constexpr int kColumns = kPanels * kPanelRows, kSums = kRows * kPanels;
  const uint8_t* HWY_RESTRICT x = a.x;
  const int8_t* HWY_RESTRICT w = a.strip->values;
  Ahead<kPanels> ahead{a.ahead, a.ahead_stride, a.ahead_step};
  alignas(64) int32_t memory[kSumsInRegisters ? 1 : kRows * kColumns];
  const int headers = a.groups / a.groups_per_header, pairs = (a.groups_per_header + 1) / 2;
  for (int h = 0; h < headers; ++h) {
    Regs<Ints, kSumsInRegisters ? kSums : 0> total;
    if constexpr (kFold) {
      Regs<Ints, kSums> sums;
      StartSums<kRows, kPanels>(a.x_start + h * kTileRows, sums);
      DotGroup<kDot, kRows, kPanels>(a.groups_per_header * a.group / 4, x, w, ahead, sums);
      ForTile<kRows, kPanels>(
          [&](auto, auto, auto i) EDGEQUANT_UNROLLED { SetTotal<i>(sums.template At<i>(), total, memory); });
    } else {
      ForTile<kRows, kPanels>([&](auto, auto, auto i) EDGEQUANT_UNROLLED { SetTotal<i>(SetInts(0), total, memory); });
    }
    const int first = h * a.groups_per_header, last = kFold ? first : first + a.groups_per_header;
    for (int g = first; g < last; ++g) {
      Regs<Ints, kSums> sums;
      StartSums<kRows, kPanels>(a.x_start + g * kTileRows, sums);
      DotGroup<kDot, kRows, kPanels>(a.group / 4, x, w, ahead, sums);
      For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
        const Ints scale = LoadInts(a.strip->sub_scale + g * kColumns + v * kPanelRows);
        For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
          constexpr int i = r * kPanels + decltype(v)::value;
          SetTotal<i>(TimesPlus(scale, sums.template At<i>(), TotalOf<i>(total, memory)), total, memory);
        });
      });
    }
    Regs<Ints, kMinima ? kSums : 0> low;
    if constexpr (kMinima) {
      ForTile<kRows, kPanels>([&](auto, auto, auto i) EDGEQUANT_UNROLLED { low.template At<i>() = SetInts(0); });
      for (int p = h * pairs; p < (h + 1) * pairs; ++p)
        For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
          const Ints minimum = LoadInts(a.strip->sub_minimum + p * kColumns + v * kPanelRows);
          For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
            Ints& sum = low.template At<r * kPanels + decltype(v)::value>();
            sum = DotPairs(sum, minimum, a.x_pair[p * kTileRows + r]);
          });
        });
    }
    const float *HWY_RESTRICT scale = a.strip->scale + h * kColumns, *HWY_RESTRICT x_scale = a.x_scale;
    [[maybe_unused]] const float* HWY_RESTRICT minimum = a.strip->minimum + h * kColumns;
    float* const y = a.y;
    ForTile<kRows, kPanels>([&](auto r, auto v, auto i) EDGEQUANT_UNROLLED {
      constexpr int column = v * kPanelRows;
      float* out = y + i * kPanelRows;
      Floats t = Times(ToFloats(TotalOf<i>(total, memory)), LoadFloats(scale + column));
      if constexpr (kMinima) t = TimesPlus(ToFloats(low.template At<i>()), LoadFloats(minimum + column), t);
      StoreFloats(TimesPlus(t, x_scale[r], LoadFloats(out)), out);
    });
  }
}

template <int kBits, bool kTable>
DecodeFn PickDecode(const PanelLayout& layout) {
  using C = Codes<kBits, kTable>;
  if constexpr (kBits > 1 && kBits <= 4)
    if (layout.fold != 0) return DecodePanel<C, true>;
  return DecodePanel<C, false>;
}
template <DotUnit kDot, int kRows, int kPanels, bool kMinima>
TileFn PickTile(const PanelLayout& layout) {
  if (!layout.two_level()) return MultiplyTile<kDot, kRows, kPanels, kMinima>;
  return layout.fold != 0 ? MultiplyTwoLevelTile<kDot, kRows, kPanels, kMinima, true>
                          : MultiplyTwoLevelTile<kDot, kRows, kPanels, kMinima, false>;
}
template <int kRows, int kPanels>
TileFn PickTile(const PanelLayout& layout) {
  return WithDotUnit([&](auto unit) {
    return layout.minima ? PickTile<unit, kRows, kPanels, true>(layout) : PickTile<unit, kRows, kPanels, false>(layout);
  });
}
template <int kPanels, int kRows = kTileRows>
TileFn PickTile(const PanelLayout& layout, int rows) {
  if constexpr (kPanels > kStripPanels) return nullptr;
  else if constexpr (kPanels == kMaxStripPanels && kRows > 1)
    return rows >= kRows ? PickTile<kRows, kPanels>(layout) : PickTile<kPanels, kRows - 1>(layout, rows);
  else return PickTile<kRows, kPanels>(layout);
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_GEMM_INL_H_
