// What a tile of 4 rows of activations reads and adds: the lines of a decoded strip, and their products.
#if defined(EDGEQUANT_TILE_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_TILE_LINES_INL_H_
#undef EDGEQUANT_TILE_LINES_INL_H_
#else
#define EDGEQUANT_TILE_LINES_INL_H_
#endif

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/panel_codes-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

// With one register per 16 columns, a tile of 4 x 48 and its float sums just fit 32 registers.
constexpr int kStripPanels = kParts == 1 ? kMaxStripPanels : 1;

// Lines of 4 k of a row that DotTile takes at once.
template <DotUnit kDot>
constexpr int kTileSteps = kDot == DotUnit::kMatrices ? 2 : 1;

// Writes the lines of panel number `index` of a strip.
class StripWriter {
 public:
  HWY_INLINE StripWriter(const DecodedStrip& strip, int index)
      : to_(strip.values + index * kPanelLine), stride_(size_t(strip.panels) * kPanelLine), run_(strip.run) {}
  // Line number `step` of those that Advance steps over. Where runs of 8 are wanted, pairs of them are put in order.
  template <int step>
  HWY_INLINE void Put(const Line& v) {
#if HWY_ARCH_ARM_A64
    static_assert(kStripPanels == 1);
    if (run_ == 8) {
      if constexpr (step % 2 == 0) even_ = v;
      else
        For<kParts>([&](auto i) EDGEQUANT_UNROLLED {
          const D32 d;
          vst2q_s32(reinterpret_cast<int32_t*>(to_ + (step - 1) * kPanelLine) + i * 2 * kLanes,
                    {hn::BitCast(d, even_.template At<i>()).raw, hn::BitCast(d, v.template At<i>()).raw});
        });
      return;
    }
#endif
    StoreLine(v, to_ + step * stride_);
  }
  HWY_INLINE void Advance(int steps) { to_ += size_t(steps) * stride_; }

 private:
  int8_t* HWY_RESTRICT to_;
  size_t stride_;
  [[maybe_unused]] int run_;
  [[maybe_unused]] Line even_;
};

#if HWY_ARCH_ARM_A64
// Adds the products of both rows of 8 signed bytes of a with both of b: a0 b0, a0 b1, a1 b0, a1 b1.
HWY_INLINE V32 DotMatrices(V32 sum, V8 a, V8 b) {
  asm(EDGEQUANT_DOT_ASM "smmla %0.4s, %1.16b, %2.16b" : "+w"(sum.raw) : "w"(a.raw), "w"(b.raw));
  return sum;
}
#endif
// Adds as many products of bytes as an instruction makes, 64 * kTileSteps a line: for measuring the limit.
template <DotUnit kDot>
HWY_INLINE Ints DotMost(const Ints& sum, const Quad& x, const Line& values) {
#if HWY_ARCH_ARM_A64
  if constexpr (kDot == DotUnit::kMatrices)
    return Parts<Ints>([&](auto i) EDGEQUANT_UNROLLED {
      return DotMatrices(sum.template At<i>(), x, values.template At<i>());
    });
#endif
  return DotCodes<false, kDot>(sum, values, x);
}

// Adds the products of kTileSteps lines of each panel and the first kRows of 4 rows of activations to sums
// [row][panel].
template <DotUnit kDot, int kRows, int kPanels>
HWY_INLINE void DotTile(const uint8_t* HWY_RESTRICT x, const int8_t* HWY_RESTRICT w,
                        Regs<Ints, kRows * kPanels>& sums) {
#if HWY_ARCH_ARM_A64
  // 4 rows of activations are one register, or two of 2 x 8 bytes. A product of matrices has columns 2 c and 2 c + 1 of
  // both rows: sums of parts of a line are those of rows 2 r and 2 r + 1, for c = 0 first, then for c = 1.
  if constexpr (kDot != DotUnit::kNone) {
    static_assert(kPanels == 1 && kRows == 4 && kParts == 4);
    constexpr int kEach = kTileSteps<kDot>;
    Regs<V8, kEach> rows;
    For<kEach>([&](auto i) EDGEQUANT_UNROLLED { rows.template At<i>() = hn::Load(D8(), x + 16 * i); });
    For<kParts * kEach>([&](auto at) EDGEQUANT_UNROLLED {
      constexpr int i = at / kEach, c = at % kEach;
      const auto values = hn::Load(DS8(), w + 16 * at);
      For<kRows / kEach>([&](auto r) EDGEQUANT_UNROLLED {
        V32& sum = sums.template At<kEach * r + c>().template At<i>();
        if constexpr (kDot == DotUnit::kMatrices)
          sum = DotMatrices(sum, rows.template At<r>(), hn::BitCast(D8(), values));
        else
          asm(EDGEQUANT_DOT_ASM "sdot %0.4s, %1.16b, %2.4b[%3]"
              : "+w"(sum.raw) : "w"(values.raw), "w"(rows.head.raw), "i"(decltype(r)::value));
      });
    });
    return;
  }
#endif
  Regs<Line, kPanels> values;
  For<kPanels>([&](auto v) EDGEQUANT_UNROLLED { values.template At<v>() = LoadLine(w + v * kPanelLine); });
  For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
    const Quad quad = LoadQuad(x + r * 4);
    For<kPanels>([&](auto v) EDGEQUANT_UNROLLED {
      Ints& sum = sums.template At<decltype(r)::value * kPanels + v>();
      sum = DotCodes<false, kDot>(sum, values.template At<v>(), quad);
    });
  });
}

// From sums by row and panel to DotTile's order, and back.
template <DotUnit kDot, int kRows, int kPanels>
HWY_INLINE void TurnTile([[maybe_unused]] Regs<Ints, kRows * kPanels>& sums) {
#if HWY_ARCH_ARM_A64
  if constexpr (kDot == DotUnit::kMatrices)
    For<kRows / 2>([&](auto r) EDGEQUANT_UNROLLED {
      For<kParts>([&](auto i) EDGEQUANT_UNROLLED {
        V32 &even = sums.template At<2 * r>().template At<i>(), &odd = sums.template At<2 * r + 1>().template At<i>();
        const auto a = vreinterpretq_s64_s32(even.raw), b = vreinterpretq_s64_s32(odd.raw);
        even = V32(vreinterpretq_s32_s64(vzip1q_s64(a, b)));
        odd = V32(vreinterpretq_s32_s64(vzip2q_s64(a, b)));
      });
    });
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_TILE_LINES_INL_H_
