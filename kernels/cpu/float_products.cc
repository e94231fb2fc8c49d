#include "kernels/cpu/float_products.h"

#include <string.h>

#include "format/decode.h"
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/float_products.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/half-inl.h"
#include "kernels/cpu/panel_lines-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

using DFloat = hn::CappedTag<float, 16>;
using VFloat = hn::Vec<DFloat>;

// A tile's sums, a column of weights and one of activations must fit the registers: 32, or 16 up to AVX2.
#if HWY_ARCH_X86 && HWY_TARGET >= HWY_AVX2
constexpr int kFloatRows = 3;
#else
constexpr int kFloatRows = kMaxFloatTileRows;
#endif

struct NumbersF32 {
  using T = float;
  static constexpr size_t kPerLane = 1;
  static HWY_INLINE VFloat MulAdd(VFloat w, VFloat x, VFloat sum) { return hn::MulAdd(w, x, sum); }
  static HWY_INLINE VFloat Load(DFloat d, const T* p) { return hn::LoadU(d, p); }
};
template <bool kBF16>
struct NumbersOf16 : NumbersF32 {
  using T = uint16_t;
  static HWY_INLINE VFloat Load([[maybe_unused]] DFloat d, const T* p) {
#if HWY_TARGET == HWY_SCALAR
    uint16_t bits;
    memcpy(&bits, p, 2);
    if constexpr (!kBF16) return hn::Set(d, F16ToF32(bits));
    else return hn::BitCast(d, hn::Set(hn::RebindToUnsigned<DFloat>(), uint32_t{bits} << 16));
#else
    const auto bits = hn::LoadU(hn::Rebind<uint16_t, DFloat>(), p);
    if constexpr (kBF16) return edgequant::HWY_NAMESPACE::PromoteBF16(d, bits);
    else return edgequant::HWY_NAMESPACE::PromoteF16(d, bits);
#endif
  }
};

// In assembly, as no instruction set that the kernels are compiled for has it.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
struct PairsOfBF16 {
  using T = uint16_t;
  static constexpr size_t kPerLane = 2;
  static HWY_INLINE VFloat Load(DFloat d, const T* p) {
    return hn::BitCast(d, hn::LoadU(hn::Repartition<uint16_t, DFloat>(), p));
  }
  static HWY_INLINE VFloat MulAdd(VFloat w, VFloat x, VFloat sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
    return sum;
  }
};
bool HasPairs() { return __builtin_cpu_supports("avx512bf16"); }
#else
using PairsOfBF16 = NumbersOf16<true>;
bool HasPairs() { return false; }
#endif

template <class Numbers, int kRows, bool kAheadOf>
void FloatTile(const FloatTileArgs& a) {
  using T = typename Numbers::T;
  constexpr int kColumns = kFloatTileColumns;
  const DFloat d;
  const size_t lanes = hn::Lanes(d), step = lanes * Numbers::kPerLane, steps = a.k / step;
  const T* w[kColumns];
  for (int c = 0; c < kColumns; ++c) w[c] = static_cast<const T*>(a.weights[c]);
  const float* HWY_RESTRICT x = a.x;
  Regs<VFloat, kRows * kColumns> sums;
  For<kRows * kColumns>([&](auto i) EDGEQUANT_UNROLLED {
    sums.template At<i>() = a.first ? hn::Zero(d) : hn::Load(d, a.sums + size_t(i) * lanes);
  });
  const auto add = [&](const auto& load) EDGEQUANT_UNROLLED {
    Regs<VFloat, kColumns> v;
    For<kColumns>([&](auto c) EDGEQUANT_UNROLLED { v.template At<c>() = load(decltype(c)::value); });
    For<kRows>([&](auto r) EDGEQUANT_UNROLLED {
      const VFloat row = hn::LoadU(d, x + size_t(r) * lanes);
      For<kColumns>([&](auto c) EDGEQUANT_UNROLLED {
        VFloat& sum = sums.template At<decltype(r)::value * kColumns + c>();
        sum = Numbers::MulAdd(v.template At<c>(), row, sum);
      });
    });
    x += kRows * lanes;
  };
  // As many steps at once as there are numbers in a line.
  const size_t at_once = HWY_MAX(size_t{1}, 64 / sizeof(T) / step);
  size_t s = 0;
  while (s < steps) {
    const size_t end = HWY_MIN(steps, s + at_once);
    if constexpr (kAheadOf)
      for (int c = 0; c < kColumns; ++c) __builtin_prefetch(a.ahead[c] + s * step * a.ahead_size, 0, 2);
    for (; s < end; ++s) add([&](int c) EDGEQUANT_UNROLLED { return Numbers::Load(d, w[c] + s * step); });
  }
  if (const size_t rest = a.k - steps * step; rest > 0) {
    T padded[kColumns][16 * Numbers::kPerLane] = {};
    for (int c = 0; c < kColumns; ++c) memcpy(padded[c], w[c] + steps * step, rest * sizeof(T));
    add([&](int c) EDGEQUANT_UNROLLED { return Numbers::Load(d, padded[c]); });
  }
  For<kRows * kColumns>([&](auto i) EDGEQUANT_UNROLLED {
    const VFloat sum = sums.template At<i>();
    if (a.last) a.out[i / kColumns * a.out_stride + i % kColumns] = hn::GetLane(hn::SumOfLanes(d, sum));
    else hn::Store(sum, d, a.sums + size_t(i) * lanes);
  });
}

template <class Numbers, bool kAheadOf, int kRows = 1>
FloatTileFn PickFloatTile(int rows) {
  if constexpr (kRows > kFloatRows) return nullptr;
  else return rows == kRows ? FloatTile<Numbers, kRows, kAheadOf> : PickFloatTile<Numbers, kAheadOf, kRows + 1>(rows);
}
FloatTileFn PickFloat(FormatId type, int rows, bool ahead) {
  if (type == FormatId::kF16) return PickFloatTile<NumbersOf16<false>, true>(rows);
  if (type == FormatId::kBF16) return PickFloatTile<NumbersOf16<true>, true>(rows);
  return ahead ? PickFloatTile<NumbersF32, true>(rows) : PickFloatTile<NumbersF32, false>(rows);
}
FloatTileFn PickPairs(int rows, bool ahead) {
  return ahead ? PickFloatTile<PairsOfBF16, true>(rows) : PickFloatTile<PairsOfBF16, false>(rows);
}
size_t LanesOfFloat() { return hn::Lanes(DFloat()); }
int RowsOfFloat() { return kFloatRows; }

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(PickFloat);
HWY_EXPORT(PickPairs);
HWY_EXPORT(HasPairs);
HWY_EXPORT(LanesOfFloat);
HWY_EXPORT(RowsOfFloat);
// Within the namespace, as builds for one instruction set look for the functions from here.
FloatTileFn PickOnBest(FormatId type, int rows, bool ahead) {
  return HWY_DYNAMIC_DISPATCH(PickFloat)(type, rows, ahead);
}
FloatTileFn PickPairsOnBest(int rows, bool ahead) { return HWY_DYNAMIC_DISPATCH(PickPairs)(rows, ahead); }
bool HasPairsOnBest() { return HWY_DYNAMIC_DISPATCH(HasPairs)(); }
size_t LanesOnBest() { return HWY_DYNAMIC_DISPATCH(LanesOfFloat)(); }
int RowsOnBest() { return HWY_DYNAMIC_DISPATCH(RowsOfFloat)(); }

}  // namespace panel

FloatTileFn FindFloatTile(FormatId type, int rows, bool ahead) { return panel::PickOnBest(type, rows, ahead); }
FloatTileFn FindPairTile(int rows, bool ahead) { return panel::PickPairsOnBest(rows, ahead); }
bool MultipliesPairs() { return panel::HasPairsOnBest(); }
size_t FloatLanes() { return panel::LanesOnBest(); }
int FloatTileRows() { return panel::RowsOnBest(); }

}  // namespace edgequant
#endif
