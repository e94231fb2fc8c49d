#include "kernels/cpu/panel_activations.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_activations.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;

// n numbers as floats, with zeros up to a whole block.
void LoadBlock(FormatId type, const void* x, size_t n, float* HWY_RESTRICT out) {
  const DF df;
  const size_t lanes = hn::Lanes(df);
  uint16_t half[kActivationBlock];
  if (type == FormatId::kF32) {
    memcpy(out, x, n * sizeof(float));
    std::fill(out + n, out + kActivationBlock, 0.0f);
    return;
  }
  memcpy(half, x, n * sizeof(uint16_t));
  std::fill(half + n, half + kActivationBlock, uint16_t{0});
  const hn::Rebind<uint16_t, DF> dh;
  const hn::Rebind<hwy::float16_t, DF> df16;
  const hn::RebindToUnsigned<DF> du;
  for (size_t i = 0; i < kActivationBlock; i += lanes) {
    const auto v = hn::LoadU(dh, half + i);
    hn::StoreU(type == FormatId::kF16 ? hn::PromoteTo(df, hn::BitCast(df16, v))
                                      : hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, v))),
               df, out + i);
  }
}

// The largest magnitude, or NaN if any number is not finite. Bits of magnitudes have the order of the numbers.
float Magnitude(const float* HWY_RESTRICT x) {
  const hn::RebindToUnsigned<DF> du;
  const size_t lanes = hn::Lanes(du);
  auto most = hn::Zero(du);
  for (size_t i = 0; i < kActivationBlock; i += lanes)
    most = hn::Max(most, hn::And(hn::BitCast(du, hn::LoadU(DF(), x + i)), hn::Set(du, 0x7fffffffu)));
  const uint32_t bits = std::min(hn::GetLane(hn::MaxOfLanes(du, most)), 0x7fc00000u);
  float magnitude;
  memcpy(&magnitude, &bits, 4);
  return std::isfinite(magnitude) ? magnitude : std::numeric_limits<float>::quiet_NaN();
}

// x * inverse, rounded, and `digits` - 1 times 128 times what is left, rounded.
void RoundBlock(const float* HWY_RESTRICT x, float inverse, int digits, int8_t* HWY_RESTRICT q, size_t stride) {
  const DF df;
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<int8_t, DF> d8;
  const auto large = hn::Set(df, 0x1.8p23f);  // bits of sums with it count whole numbers
  for (size_t i = 0; i < kActivationBlock; i += hn::Lanes(df)) {
    auto t = hn::Mul(hn::LoadU(df, x + i), hn::Set(df, inverse));
    for (int d = 0; d < digits; ++d) {
      const auto whole = hn::Add(t, large);
      const auto number = hn::Sub(hn::BitCast(di, whole), hn::BitCast(di, large));
      hn::StoreU(hn::DemoteTo(d8, number), d8, q + size_t(d) * stride + i);
      t = hn::Mul(hn::Sub(t, hn::Sub(whole, large)), hn::Set(df, 128.0f));
    }
  }
}

void QuantizeRow(FormatId type, const void* x, size_t k, int digits, int8_t* q, size_t stride, float* scale,
                 size_t scale_stride) {
  HWY_ALIGN float copy[kActivationBlock];
  const size_t size = type == FormatId::kF32 ? 4 : 2;
  for (size_t at = 0, b = 0; at < k; at += kActivationBlock, ++b, q += kActivationBlock) {
    const uint8_t* const from = static_cast<const uint8_t*>(x) + at * size;
    for (size_t i = 0; i < kActivationBlock * size; i += 64) hwy::Prefetch(from + 4 * kActivationBlock * size + i);
    const bool whole = type == FormatId::kF32 && k - at >= kActivationBlock;
    if (!whole) LoadBlock(type, from, std::min(k - at, kActivationBlock), copy);
    const float* const block = whole ? reinterpret_cast<const float*>(from) : copy;
    const float magnitude = Magnitude(block);
    float step, inverse;
    if (!(magnitude < 3.4e38f)) {  // NaN
      for (int d = 0; d < digits; ++d) {
        memset(q + size_t(d) * stride, 0, kActivationBlock);
        scale[size_t(d) * scale_stride + b] = magnitude;
      }
      continue;
    }
    const float clamped = std::max(magnitude, 0x1p-119f);  // the inverse stays finite
    if (digits == 1) {
      step = clamped / 127;
      inverse = 127 / clamped;
    } else {
      uint32_t bits;
      memcpy(&bits, &clamped, 4);
      const uint32_t exponent = bits >> 23;
      bits = (exponent - 5) << 23;
      memcpy(&step, &bits, 4);
      bits = (254 - (exponent - 5)) << 23;
      memcpy(&inverse, &bits, 4);
    }
    RoundBlock(block, inverse, digits, q, stride);
    for (int d = 0; d < digits; ++d, step *= 1.0f / 128) scale[size_t(d) * scale_stride + b] = step;
  }
}

// Runs of the size of a Word.
template <class Word>
void InterleaveRuns(const int8_t* HWY_RESTRICT q, size_t stride, size_t k, uint8_t* HWY_RESTRICT out) {
  for (size_t i = 0; i < k; i += sizeof(Word))
    for (size_t r = 0; r < 4; ++r, out += sizeof(Word)) memcpy(out, q + r * stride + i, sizeof(Word));
}
void InterleaveRows(const int8_t* q, size_t stride, size_t k, int run, uint8_t* out) {
  if (run == 8) InterleaveRuns<uint64_t>(q, stride, k, out);
  else InterleaveRuns<uint32_t>(q, stride, k, out);
}

void TransposeFours(const int8_t* q, size_t n, int8_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t i = 0; i < n; i += 16) {
    int8_t from[16];
    memcpy(from, q + i, 16);
    for (size_t k = 0; k < 16; ++k) out[i + k] = from[k % 4 * 4 + k / 4];
  }
#else
  const hn::CappedTag<int8_t, 16> d;
  alignas(16) static constexpr int8_t kFrom[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const auto from = hn::Load(d, kFrom);
  for (size_t i = 0; i < n; i += 16) hn::StoreU(hn::TableLookupBytes(hn::LoadU(d, q + i), from), d, out + i);
#endif
}

void SumRows(const int8_t* HWY_RESTRICT q, size_t count, int group, int32_t* HWY_RESTRICT sums) {
  for (size_t g = 0; g < count; ++g, q += group) {
    int32_t sum = 0;
    for (int i = 0; i < group; ++i) sum += q[i];
    sums[g] = sum;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(QuantizeRow);
HWY_EXPORT(InterleaveRows);
HWY_EXPORT(TransposeFours);
HWY_EXPORT(SumRows);

}  // namespace panel
using namespace panel;

void QuantizeActivations(FormatId type, const void* x, size_t k, int digits, int8_t* q, size_t stride, float* scale,
                         size_t scale_stride) {
  HWY_DYNAMIC_DISPATCH(QuantizeRow)(type, x, k, digits, q, stride, scale, scale_stride);
}
void InterleaveActivations(const int8_t* q, size_t stride, size_t k, int run, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(InterleaveRows)(q, stride, k, run, out);
}
void TransposeActivations(const int8_t* q, size_t n, int8_t* out) { HWY_DYNAMIC_DISPATCH(TransposeFours)(q, n, out); }
void SumActivations(const int8_t* q, size_t count, int group, int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(SumRows)(q, count, group, sums);
}

void StoreOutputs(const float* y, size_t n, FormatId type, void* out) {
  if (type == FormatId::kF32) {
    memcpy(out, y, n * sizeof(float));
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const uint16_t half = type == FormatId::kF16 ? F16FromF32(y[i]) : BF16FromF32(y[i]);
    memcpy(static_cast<uint8_t*>(out) + 2 * i, &half, 2);
  }
}

}  // namespace edgequant
#endif
