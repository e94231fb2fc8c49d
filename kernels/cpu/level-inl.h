// Scales and minima of a block: one float per group.
#if defined(EDGEQUANT_LEVEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_LEVEL_INL_H_
#undef EDGEQUANT_LEVEL_INL_H_
#else
#define EDGEQUANT_LEVEL_INL_H_
#endif

#include "kernels/cpu/field-inl.h"
#include "kernels/cpu/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
constexpr int kMaxGroups = 16;  // of one level in one block

constexpr int GroupsOf(const Level& s, int weights) {
  return s.sub_group ? weights / s.sub_group : s.group ? weights / s.group : 1;
}
constexpr int GroupOf(const Level& s, int weight) {
  return s.sub_group ? weight / s.sub_group : s.group ? weight / s.group : 0;
}

template <Level kL>
HWY_INLINE float LoadNumber(const uint8_t* block, int k) {
#if EDGEQUANT_NATIVE_F16
  if constexpr (kL.type == Number::kF16 && kL.pieces.kind == FieldKind::kNone) {
    uint16_t bits;
    memcpy(&bits, block + kL.byte + 2 * k, 2);
    const hn::CappedTag<float, 4> df;
    return kL.factor * hn::GetLane(PromoteF16(df, hn::Set(hn::Rebind<uint16_t, decltype(df)>(), bits)));
  }
#endif
  return ReadLevelNumber(kL, block, k);
}

// All values of one level in out[0 .. kMaxGroups).
template <Level kL, int kWeights, int kBlockBytes>
HWY_INLINE void ExpandLevel(const uint8_t* HWY_RESTRICT block, float* HWY_RESTRICT out) {
  constexpr int count = GroupsOf(kL, kWeights);
  static_assert(count <= kMaxGroups);
  if constexpr (kL.sub_group == 0) {
    for (int g = 0; g < count; ++g) out[g] = LoadNumber<kL>(block, g);
  } else {
    static_assert(kL.group == 0 && kBlockBytes >= 16);
    const ByteTag<16> d8;
    const hn::RebindToSigned<decltype(d8)> ds8;
    auto v = ReadField<kL.sub[0], 0, 16, count, kBlockBytes>(block);
    if constexpr (kL.sub[1].kind != FieldKind::kNone)
      v = hn::Or(v, ReadField<kL.sub[1], 0, 16, count, kBlockBytes>(block));
    alignas(16) int8_t q[16];
    hn::Store(hn::BitCast(ds8, v), ds8, q);
    const hn::CappedTag<float, count> df;
    const hn::RebindToSigned<decltype(df)> di;
    const hn::Rebind<int8_t, decltype(df)> dq;
    const auto number = hn::Set(df, LoadNumber<kL>(block, 0)), zero = hn::Set(df, kL.sub_zero);
    for (int g = 0; g < count; g += int(hn::Lanes(df))) {
      const auto sub = hn::ConvertTo(df, hn::PromoteTo(di, hn::Load(dq, q + g)));
      hn::Store(hn::Mul(number, hn::Sub(sub, zero)), df, out + g);
    }
  }
  // Without this g++ keeps the array in a register and permutes it for each group; broadcasting loads are cheaper.
  if constexpr (count > 1) asm volatile("" : : "r"(out) : "memory");
}
#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_LEVEL_INL_H_
