// Reading panels of trits (format/grid_panel.h): a look-up per line of weights.
#if defined(EDGEQUANT_TRIT_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_TRIT_LINES_INL_H_
#undef EDGEQUANT_TRIT_LINES_INL_H_
#else
#define EDGEQUANT_TRIT_LINES_INL_H_
#endif

#include "kernels/cpu/grid_lines-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

// What the codes are, at compile time: with signs, or with shifts.
template <bool kHasSigns>
struct TritCodes {
  static constexpr bool kSigns = kHasSigns;
  static constexpr GridShift kShift = kHasSigns ? GridShift::kNone : GridShift::kCode;
  static constexpr int kGroup = 16, kUnitLines = kHasSigns ? 3 : 2, kLines = kUnits * kUnitLines;
  static constexpr int kScaleLines = kHasSigns ? 0 : kGridBlock / kGroup / 8;
};
struct NoRows {
  explicit HWY_INLINE NoRows(const GridPanel&) {}
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
// Tables by 6 bits, or 7 where there are two signs below a weight's own.
template <bool kSigns>
struct TritValues {
  static constexpr int kTables = kSigns ? 7 : 4;
  Regs<V8, kTables> table;
};
template <bool kSigns>
HWY_INLINE TritValues<kSigns> LoadValues(TritCodes<kSigns>, const GridPanel& grid, bool flip_tops) {
  constexpr int kAt[2][7] = {{0, 2, 4, 6}, {0, 2, 3, 4, 5, 6, 7}};  // halves of wide[i]
  TritValues<kSigns> values;
  For<TritValues<kSigns>::kTables>([&](auto i) EDGEQUANT_UNROLLED {
    const auto v = hn::Load(D8(), reinterpret_cast<const uint8_t*>(grid.wide[0]) + kAt[kSigns][i] * 64);
    values.table.template At<i>() = hn::Xor(v, hn::Set(D8(), uint8_t(flip_tops ? 128 : 0)));
  });
  return values;
}
template <int kTable, bool kSigns>
HWY_INLINE Line ByBits(const TritValues<kSigns>& values, V8 index, std::integral_constant<int, 6>) {
  return {V8{_mm512_permutexvar_epi8(index.raw, values.table.template At<kTable>().raw)}, {}};
}
template <int kTable, bool kSigns>
HWY_INLINE Line ByBits(const TritValues<kSigns>& values, V8 index, std::integral_constant<int, 7>) {
  return {V8{_mm512_permutex2var_epi8(values.table.template At<kTable>().raw, index.raw,
                                      values.table.template At<kTable + 1>().raw)},
          {}};
}
// f(step constant, values) for the 4 steps of half kOdd of a unit.
template <int kOdd, bool kSigns, class F>
HWY_INLINE void ForTrits(const TritValues<kSigns>& values, const uint8_t* HWY_RESTRICT unit, const F& f) {
  using Six = std::integral_constant<int, 6>;
  using Seven = std::integral_constant<int, 7>;
  const V8 v = LoadLine(unit + kOdd * kPanelLine).head;
  f(std::integral_constant<int, 0>(), ByBits<0>(values, v, Six()));
  if constexpr (kSigns) {
    f(std::integral_constant<int, 1>(), ByBits<1>(values, v, Seven()));
    f(std::integral_constant<int, 2>(), ByBits<3>(values, MoveBits<1, 0>(v), Seven()));
    f(std::integral_constant<int, 3>(), ByBits<5 + kOdd>(values, LoadLine(unit + 2 * kPanelLine).head, Six()));
  } else {
    f(std::integral_constant<int, 1>(), ByBits<1>(values, v, Six()));
    f(std::integral_constant<int, 2>(), ByBits<2>(values, v, Six()));
    f(std::integral_constant<int, 3>(), ByBits<3>(values, MoveBits<5, 0>(v), Six()));
  }
}

#else
template <bool kSigns>
struct TritValues {
  const GridPanel& grid;
  int plus;
};
template <bool kSigns>
HWY_INLINE TritValues<kSigns> LoadValues(TritCodes<kSigns>, const GridPanel& grid, bool flip_tops) {
  return {grid, flip_tops ? 128 : 0};
}
// Machines that look up few bytes at once have other panels by default.
template <int kOdd, bool kSigns, class F>
HWY_INLINE void ForTrits(const TritValues<kSigns>& values, const uint8_t* HWY_RESTRICT unit, const F& f) {
  const auto index = [&](int i, int at) {
    const int v = unit[kOdd * kPanelLine + at];
    if (!kSigns) return i == 3 ? v >> 5 : v & 63;
    return i == 3 ? (unit[2 * kPanelLine + at] & 63) + 64 * kOdd : i == 2 ? v >> 1 : v & 127;
  };
  alignas(64) uint8_t line[kPanelLine];
  For<kHalfSteps>([&](auto i) EDGEQUANT_UNROLLED {
    for (int at = 0; at < kPanelLine; ++at) line[at] = uint8_t(values.grid.wide[i][index(i, at)] + values.plus);
    f(i, LoadLine(line));
  });
}
#endif

template <class G, bool kSigns, class Before, class F, class After>
HWY_INLINE void ForBlock(NoRows&, const TritValues<kSigns>& values, const uint8_t* HWY_RESTRICT block,
                         const Before& before, const F& f, const After& after) {
  for (int u = 0; u < kUnits; ++u) {
    const uint8_t* const unit = block + u * G::kUnitLines * kPanelLine;
    For<G::kUnitLines>([&](auto i) EDGEQUANT_UNROLLED { hwy::Prefetch(unit + kAhead + i * kPanelLine); });
    For<2>([&](auto odd) EDGEQUANT_UNROLLED {
      before(2 * u + odd, odd);
      ForTrits<odd>(values, unit, [&](auto i, const Line& v) EDGEQUANT_UNROLLED { f(2 * u + odd, i, v); });
      after(2 * u + odd, odd);
    });
  }
}

// With signs the codes of scales lie in pieces of 2 bits.
HWY_INLINE void ReadSubScale(const GridBlockAt<TritCodes<true>>& block, size_t g, Ints* scale, Ints*) {
  alignas(4) static constexpr int8_t kPieces[2][4] = {{2, 8, 0, 0}, {0, 0, 2, 8}};
  const Line pieces = LoadLine(block.lines + (g / 2 * TritCodes<true>::kUnitLines + 2) * kPanelLine);
  *scale = DotCodes<true>(SetInts(1), BitsOf<2, 6, 0>(pieces), LoadQuad(kPieces[g % 2]));
}

template <class G>
struct ReaderOf {
  using Type = RowReader<G>;
};
template <bool kSigns>
struct ReaderOf<TritCodes<kSigns>> {
  using Type = NoRows;
};

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_TRIT_LINES_INL_H_
