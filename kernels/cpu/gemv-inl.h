// The fused matrix-vector product: codes are unpacked in registers and multiplied at once.
#if defined(EDGEQUANT_GEMV_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GEMV_INL_H_
#undef EDGEQUANT_GEMV_INL_H_
#else
#define EDGEQUANT_GEMV_INL_H_
#endif

#include "kernels/cpu/gemv.h"
#include "kernels/cpu/panel_codes-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

// Sums of one row: a dot product takes 4 cycles, so there must be 4 of them or so, but more would not fit the
// registers. Single bits of one row are bound by arithmetic: each line is shifted for every other step only, and the
// steps between have sums of their own, of twice the bits.
template <class C, int kRows>
constexpr bool kBitPairs = C::kBits == 1 && kRows == 1;
template <class C, int kRows>
constexpr int kChains = kBitPairs<C, kRows> ? 4 : kRows <= 2 ? 2 : 1;
template <class C, int kRows>
using RowSums = Regs<Ints, kChains<C, kRows> * kRows>;

// Sums of row r that begin with `start`; and their total.
template <class C, int kRows, int r>
HWY_INLINE void BeginRow(int32_t start, RowSums<C, kRows>& sums) {
  constexpr int n = kChains<C, kRows>;
  For<n - 1>([&](auto i) EDGEQUANT_UNROLLED { sums.template At<n * r + i>() = SetInts(0); });
  sums.template At<n * r + n - 1>() = SetInts(start);
}
template <class C, int kRows, int r>
HWY_INLINE Ints TotalOfRow(const RowSums<C, kRows>& sums) {
  const Ints& first = sums.template At<kChains<C, kRows> * r>();
  if constexpr (kBitPairs<C, kRows>) {
    const Ints once = Plus(first, sums.template At<2>()), twice = Plus(sums.template At<1>(), sums.template At<3>());
    return Plus(Plus(once, once), twice);
  } else if constexpr (kChains<C, kRows> == 2) {
    return Plus(first, sums.template At<2 * r + 1>());
  } else {
    return first;
  }
}

// Steps [kFirst, kFirst + kSteps) of a unit for all rows; x points at the activations of the unit's first k.
template <class C, int kRows, int kFirst, int kSteps>
HWY_INLINE void DotSteps(UnitReader<C>& unit, const Table16& table, const int8_t* HWY_RESTRICT x, size_t x_stride,
                         RowSums<C, kRows>& sums) {
  For<kSteps>([&](auto i) EDGEQUANT_UNROLLED {
    constexpr int step = kFirst + i, chain = step % kChains<C, kRows>;
    Line w;
    if constexpr (kBitPairs<C, kRows>) w = unit.template NextOfPair<step>();
    else w = OperandOf<C>(unit.template Next<step>(), table);
    For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
      Ints& sum = sums.template At<kChains<C, kRows> * r + chain>();
      sum = DotCodes<C::kSmall, C::kDot>(sum, w, LoadQuad(x + size_t(r) * x_stride + 4 * step));
    });
  });
}

template <class C, int kRows, bool kHalfUnits, bool kTwoLevel>
void GemvPanel(const GemvArgs& a) {
  const PanelLayout& layout = *a.layout;
  const uint8_t* HWY_RESTRICT p = a.panel;
  const int8_t* HWY_RESTRICT x = a.x;
  const size_t per_header = size_t(layout.groups_per_header), header_bytes = layout.header_bytes();
  const int units_per_group = layout.group / kPanelUnit;
  const Table16 table = OperandTable(layout);
  alignas(64) float scale[kTwoLevel ? 1 : 16 * 16], minimum[kTwoLevel ? 1 : 16 * 16];
  Regs<Floats, kRows> y;
  Regs<Ints, kTwoLevel ? kRows : 0> total, low;  // of a header
  For<kRows>([&](auto r) EDGEQUANT_UNROLLED { y.template At<r>() = ZeroFloats(); });

  const auto begin = [&](size_t g, RowSums<C, kRows>& sums) EDGEQUANT_UNROLLED {
    For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
      BeginRow<C, kRows, r>(a.start[size_t(r) * a.group_stride + g], sums);
    });
  };
  for (size_t g0 = 0; g0 < a.groups; g0 += per_header) {
    const size_t count = HWY_MIN(per_header, a.groups - g0);
    const uint8_t* const header = p;
    for (size_t i = 0; i < header_bytes; i += kPanelLine) hwy::Prefetch(p + kAhead + i);
    p += header_bytes;
    if constexpr (kTwoLevel) {
      For<kRows>([&](auto r) EDGEQUANT_UNROLLED { total.template At<r>() = low.template At<r>() = SetInts(0); });
      for (size_t g = 0; g < count && layout.minima; ++g) {
        const Ints m = SubMinimum(layout, header, g);
        For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
          const Ints x_sum = SetInts(a.x_sum[size_t(r) * a.group_stride + g0 + g]);
          low.template At<r>() = TimesPlus(m, x_sum, low.template At<r>());
        });
      }
    } else {
      ReadScales(layout, header, 0, int(count), kPanelRows, scale, minimum);
      for (size_t g = 0; g < count && layout.minima; ++g) {
        const Floats m = LoadFloats(minimum + g * kPanelRows);
        For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
          y.template At<r>() = TimesPlus(m, a.sum[size_t(r) * a.group_stride + g0 + g], y.template At<r>());
        });
      }
    }
    const auto finish = [&](size_t g, RowSums<C, kRows>& sums) EDGEQUANT_UNROLLED {
      if constexpr (kTwoLevel) {
        const Ints weight_scale = SubScale(layout, header, g);
        For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
          total.template At<r>() =
              TimesPlus(weight_scale, TotalOfRow<C, kRows, r>(sums), total.template At<r>());
        });
      } else {
        const Floats weight_scale = LoadFloats(scale + g * kPanelRows);
        For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
          y.template At<r>() =
              TimesPlus(ToFloats(TotalOfRow<C, kRows, r>(sums)),
                        Times(weight_scale, a.scale[size_t(r) * a.group_stride + g0 + g]), y.template At<r>());
        });
      }
    };
    for (size_t g = 0; g < count;) {
      RowSums<C, kRows> sums;
      begin(g0 + g, sums);
      const int units = kHalfUnits ? 1 : units_per_group;
      for (int u = 0; u < units; ++u) {
        For<C::kBits>([&](auto i) EDGEQUANT_UNROLLED { hwy::Prefetch(p + kAhead + i * kPanelLine); });
        UnitReader<C> unit{p, {}, {}};
        DotSteps<C, kRows, 0, kHalfUnits ? 4 : 8>(unit, table, x, a.x_stride, sums);
        if constexpr (kHalfUnits) {  // two groups of 16 share the unit
          finish(g, sums);
          ++g;
          begin(g0 + g, sums);
          DotSteps<C, kRows, 4, 4>(unit, table, x, a.x_stride, sums);
        }
        p += C::kUnitBytes;
        x += kPanelUnit;
      }
      finish(g, sums);
      ++g;
    }
    if constexpr (kTwoLevel) {
      const Floats d = FromF16(header);
      const float min_ratio = layout.min_factor / layout.factor;
      const Floats m = layout.minima ? Times(FromF16(header + 32), min_ratio) : ZeroFloats();
      For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
        Floats t = Times(ToFloats(total.template At<r>()), d);
        t = TimesPlus(ToFloats(low.template At<r>()), m, t);
        y.template At<r>() = TimesPlus(t, a.scale[size_t(r) * a.group_stride + g0], y.template At<r>());
      });
    }
  }
  For<kRows>([&](auto r) EDGEQUANT_UNROLLED { StoreFloats(y.template At<r>(), a.y + r * kPanelRows); });
}

template <int kBits, bool kTable, int kRows, DotUnit kDot>
GemvFn PickGemv(const PanelLayout& layout) {
  using C = Codes<kBits, kTable, kDot>;
  if (layout.two_level())
    return layout.group < kPanelUnit ? GemvPanel<C, kRows, true, true> : GemvPanel<C, kRows, false, true>;
  return layout.group < kPanelUnit ? GemvPanel<C, kRows, true, false> : GemvPanel<C, kRows, false, false>;
}
template <int kRows, DotUnit kDot>
GemvFn PickGemv(const PanelLayout& layout) {
  switch (layout.bits) {
    case 1: return PickGemv<1, false, kRows, kDot>(layout);
    case 2: return layout.table ? PickGemv<2, true, kRows, kDot>(layout) : PickGemv<2, false, kRows, kDot>(layout);
    case 3: return layout.table ? PickGemv<3, true, kRows, kDot>(layout) : PickGemv<3, false, kRows, kDot>(layout);
    case 4: return layout.table ? PickGemv<4, true, kRows, kDot>(layout) : PickGemv<4, false, kRows, kDot>(layout);
    case 5: return PickGemv<5, false, kRows, kDot>(layout);
    case 6: return PickGemv<6, false, kRows, kDot>(layout);
    default: return PickGemv<8, false, kRows, kDot>(layout);
  }
}
template <int kRows>
GemvFn PickGemv(const PanelLayout& layout) {
  return WithDotUnit([&](auto unit) { return PickGemv<kRows, ForVectors(unit)>(layout); });
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_GEMV_INL_H_
