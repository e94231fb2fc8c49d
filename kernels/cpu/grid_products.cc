// Panels of grids: the fused product of a few rows, and decoding for tiles. In compact panels the rows of a block of
// codes are looked up first, for all 16 rows of weights; what is left are codes of a table.
#include "kernels/cpu/grid_products.h"

#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/grid_products.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/tile_lines-inl.h"
#include "kernels/cpu/trit_lines-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

template <class G, int kRows, DotUnit kDot>
void GemvGrid(const GemvArgs& a) {
  const PanelLayout& layout = *a.layout;
  constexpr int kGroups = kGridBlock / G::kGroup, kHalvesPerGroup = G::kGroup / kHalf;
  constexpr int kChains = 2;  // of dot products: more would add sums and copies of zeros
  constexpr bool kMinima = G::kShift == GridShift::kGroup;
  typename ReaderOf<G>::Type reader(*layout.grid);
  const auto values = LoadValues(G(), *layout.grid, kUnsignedDot);
  const float min_ratio = layout.min_factor / layout.factor;
  Regs<Floats, kRows> y;
  For<kRows>([&](auto r) EDGEQUANT_UNROLLED { y.template At<r>() = ZeroFloats(); });
  for (size_t g0 = 0; g0 < a.groups; g0 += kGroups) {
    const GridBlockAt<G> block(layout, a.panel, g0 / kGroups);
    Regs<Ints, kRows> total, low;
    For<kRows>([&](auto r) EDGEQUANT_UNROLLED { total.template At<r>() = low.template At<r>() = SetInts(0); });
    Regs<Ints, kChains * kRows> sums;
    ForBlock<G>(
        reader, values, block.lines,
        [&](int half, auto odd) EDGEQUANT_UNROLLED {
          if constexpr (odd % kHalvesPerGroup == 0)
            For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
              For<kChains>([&](auto c) EDGEQUANT_UNROLLED { sums.template At<kChains * r + c>() = SetInts(0); });
              sums.template At<kChains * r>() =
                  SetInts(a.start[size_t(r) * a.group_stride + g0 + size_t(half / kHalvesPerGroup)]);
            });
        },
        [&](int half, auto i, const Line& v) EDGEQUANT_UNROLLED {
          const int8_t* const x = a.x + g0 * G::kGroup + size_t(half) * kHalf + 4 * i;
          For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
            Ints& sum = sums.template At<kChains * r + decltype(i)::value % kChains>();
            sum = DotCodes<false, kDot>(sum, v, LoadQuad(x + size_t(r) * a.x_stride));
          });
        },
        [&](int half, auto odd) EDGEQUANT_UNROLLED {
          if constexpr ((odd + 1) % kHalvesPerGroup == 0) {
            const size_t g = size_t(half / kHalvesPerGroup);
            Ints scale, minimum;
            ReadSubScale(block, g, &scale, &minimum);
            For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
              const Ints sum = Plus(sums.template At<kChains * r>(), sums.template At<kChains * r + 1>());
              total.template At<r>() = TimesPlus(scale, sum, total.template At<r>());
              if constexpr (kMinima)
                low.template At<r>() = TimesPlus(minimum, SetInts(a.x_sum[size_t(r) * a.group_stride + g0 + g]),
                                                 low.template At<r>());
            });
          }
        });
    const Floats d = FromF16(block.number);
    For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
      Floats t = ToFloats(total.template At<r>());
      if constexpr (kMinima) t = TimesPlus(ToFloats(low.template At<r>()), min_ratio, t);
      y.template At<r>() = TimesPlus(Times(t, d), a.scale[size_t(r) * a.group_stride + g0], y.template At<r>());
    });
  }
  For<kRows>([&](auto r) EDGEQUANT_UNROLLED { StoreFloats(y.template At<r>(), a.y + r * kPanelRows); });
}

// One block at a time, so a header's numbers are in row 0.
template <class G>
void DecodeGrid(const PanelLayout& layout, const uint8_t* panel, size_t first, size_t count, int index,
                const DecodedStrip& out) {
  constexpr int kGroups = kGridBlock / G::kGroup;
  const size_t columns = size_t(out.panels) * kPanelRows;
  const size_t at = size_t(index) * kPanelRows;
  const GridBlockAt<G> block(layout, panel, first / kGroups);
  typename ReaderOf<G>::Type reader(*layout.grid);
  const auto values = LoadValues(G(), *layout.grid, kUnsignedDot);
  StoreFloats(FromF16(block.number), out.scale + at);
  for (size_t g = 0; g < count; ++g) {
    Ints scale, minimum, next;
    ReadSubScale(block, g, &scale, &minimum);
    StoreInts(scale, out.sub_scale + g * columns + at);
    if constexpr (G::kShift == GridShift::kGroup)
      if (g % 2 == 0) {
        ReadSubScale(block, g + 1, &scale, &next);
        StoreInts(JoinPairs(minimum, next), out.sub_minimum + g / 2 * columns + at);
      }
  }
  if (layout.minima) StoreFloats(Times(FromF16(block.number), layout.min_factor / layout.factor), out.minimum + at);
  StripWriter to(out, index);
  ForBlock<G>(
      reader, values, block.lines, [](int, auto) {},
      [&](int, auto i, const Line& v) EDGEQUANT_UNROLLED { to.Put<i>(v); },
      [&](int, auto) EDGEQUANT_UNROLLED { to.Advance(kHalfSteps); });
}

// pick(codes) for what the layout has; null if that is no known format's.
template <class Fn, class... G, class Pick>
Fn PickFrom(const PanelLayout& layout, const Pick& pick) {
  const GridPanel& p = *layout.grid;
  Fn found = nullptr;
  const auto take = [&](auto codes) {
    using C = decltype(codes);
    if (p.dim == C::kDim && p.code_bits == C::kCodeBits && p.signs == C::kSigns && p.shift == C::kShift &&
        layout.group == C::kGroup)
      found = pick(codes);
  };
  (take(G()), ...);
  return found;
}
template <class Fn, class Pick>
Fn PickGrid(const PanelLayout& layout, const Pick& pick) {
  using Shift = GridShift;
  if (layout.grid->trits) return layout.grid->signs ? pick(TritCodes<true>()) : pick(TritCodes<false>());
  return PickFrom<Fn, GridCodes<8, 8, true, Shift::kNone, 32>, GridCodes<8, 9, true, Shift::kNone, 16>,
                  GridCodes<8, 10, true, Shift::kNone, 16>, GridCodes<8, 11, false, Shift::kGroup, 32>,
                  GridCodes<8, 11, false, Shift::kCode, 16>, GridCodes<4, 8, true, Shift::kNone, 32>,
                  GridCodes<4, 9, true, Shift::kNone, 32>, GridCodes<8, 8, true, Shift::kCode, 32>>(layout, pick);
}

GemvFn GridGemvOf(const PanelLayout& layout, int rows) {
  return PickGrid<GemvFn>(layout, [&](auto codes) -> GemvFn {
    using G = decltype(codes);
    return WithDotUnit([&](auto unit) -> GemvFn {
      constexpr DotUnit kDot = ForVectors(unit);
      return rows == 1 ? GemvGrid<G, 1, kDot> : rows == 2 ? GemvGrid<G, 2, kDot> : GemvGrid<G, 4, kDot>;
    });
  });
}
DecodeFn GridDecodeOf(const PanelLayout& layout) {
  return PickGrid<DecodeFn>(layout, [&](auto codes) -> DecodeFn { return DecodeGrid<decltype(codes)>; });
}
bool GridPermutes() { return kGridPermutes; }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(GridGemvOf);
HWY_EXPORT(GridDecodeOf);
HWY_EXPORT(GridPermutes);

}  // namespace panel
using namespace panel;

GemvFn FindGridGemv(const PanelLayout& layout, int rows) { return HWY_DYNAMIC_DISPATCH(GridGemvOf)(layout, rows); }
DecodeFn FindGridDecode(const PanelLayout& layout) { return HWY_DYNAMIC_DISPATCH(GridDecodeOf)(layout); }
bool GridsAreFast() { return HWY_DYNAMIC_DISPATCH(GridPermutes)(); }

}  // namespace edgequant
#endif
