#include "kernels/cpu/scheme_decode.h"

#include <string.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scheme_decode.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/scheme_values-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant {
namespace HWY_NAMESPACE {

// Each group: whole vectors, then the rest of it through memory.
template <bool kMinimum, class V>
HWY_INLINE void DecodeGroup(const V& values, const uint8_t* HWY_RESTRICT code, size_t n, float scale, float zero,
                            float minimum, float* HWY_RESTRICT out) {
  const DF d;
  const DI di;
  const hn::Rebind<uint8_t, DF> d8;
  const size_t lanes = size_t(LanesF());
  const VF sv = hn::Set(d, scale), zv = hn::Set(d, zero), mv = hn::Set(d, minimum);
  const auto weights = [&](const uint8_t* from) HWY_ATTR {
    VF v = values.ValueOfCode(d, hn::PromoteTo(di, hn::LoadU(d8, from)));
    if constexpr (V::kWhole) v = hn::Sub(v, zv);
    v = hn::Mul(v, sv);
    if constexpr (kMinimum) v = hn::Add(v, mv);
    return v;
  };
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(weights(code + i), d, out + i);
  if (i < n) {
    alignas(64) uint8_t rest[kColumns] = {};
    alignas(64) float y[kColumns];
    memcpy(rest, code + i, n - i);
    hn::Store(weights(rest), d, y);
    memcpy(out + i, y, (n - i) * sizeof(float));
  }
}

template <class V>
HWY_NOINLINE void DecodeWith(const DecodeRow& row, float* HWY_RESTRICT out) {
  const V values(*row.values);
  size_t g = 0;
  for (size_t i = 0; i < row.cols; i += row.group, ++g) {
    const size_t n = HWY_MIN(row.group, row.cols - i);
    const float scale = row.scale ? row.scale[g] : 1.0f;
    if (row.zeros == Zero::kMinimum) {
      DecodeGroup<true>(values, row.code + i, n, scale, row.values->zero, row.shift[g], out + i);
    } else {
      const float zero = row.zeros == Zero::kNone ? row.values->zero : row.shift[g];
      DecodeGroup<false>(values, row.code + i, n, scale, zero, 0, out + i);
    }
  }
}

// Tables of groups and codebooks: each code stands for `dim` floats.
HWY_NOINLINE void DecodeVectors(const DecodeRow& row, float* HWY_RESTRICT out) {
  const size_t dim = size_t(row.dim);
  size_t g = 0;
  for (size_t i = 0; i < row.cols; i += row.group, ++g) {
    const size_t n = HWY_MIN(row.group, row.cols - i);
    const float scale = row.scale ? row.scale[g] : 1.0f, minimum = row.zeros == Zero::kMinimum ? row.shift[g] : 0.0f;
    const bool own = row.dim == 1;  // a table of this group
    const float* HWY_RESTRICT table = own ? row.table + g * size_t(row.codes) : row.table;
    const uint8_t* HWY_RESTRICT code = row.code + i / dim;
    const auto vectors = [&](auto width) HWY_ATTR {
      constexpr size_t kDim = decltype(width)::value;
      for (size_t k = 0; k < n / kDim; ++k)
        for (size_t j = 0; j < kDim; ++j)
          out[i + k * kDim + j] = table[code[k] * kDim + j] * scale + minimum;
    };
    switch (dim) {
      case 1: vectors(std::integral_constant<size_t, 1>()); break;
      case 2: vectors(std::integral_constant<size_t, 2>()); break;
      case 4: vectors(std::integral_constant<size_t, 4>()); break;
      default: vectors(std::integral_constant<size_t, 8>()); break;
    }
  }
}

void DecodeTargeted(const DecodeRow& row, float* out) {
  if (!row.values) return DecodeVectors(row, out);
  if (row.values->kind == Values::kAffine) return DecodeWith<WholeCodes>(row, out);
  if (row.values->kind == Values::kMinifloat) return DecodeWith<MinifloatCodes>(row, out);
  switch (row.values->bits) {
    case 1: return DecodeWith<TableCodes<1>>(row, out);
    case 2: return DecodeWith<TableCodes<2>>(row, out);
    case 3: return DecodeWith<TableCodes<3>>(row, out);
    case 4: return DecodeWith<TableCodes<4>>(row, out);
    default: return DecodeWith<TableCodes<8>>(row, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {

HWY_EXPORT(DecodeTargeted);
void DecodeCodes(const DecodeRow& row, float* out) { HWY_DYNAMIC_DISPATCH(DecodeTargeted)(row, out); }

}  // namespace edgequant
#endif
