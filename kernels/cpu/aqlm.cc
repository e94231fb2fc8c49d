#include "kernels/cpu/aqlm.h"

#include "format/decode.h"
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/aqlm.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::aqlm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 8>;

HWY_INLINE hn::Vec<DF> LoadEntry(DF d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE hn::Vec<DF> LoadEntry(DF d, const uint16_t* p) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, F16ToF32(*p));
#else
  return edgequant::HWY_NAMESPACE::PromoteF16(d, hn::LoadU(hn::Rebind<uint16_t, DF>(), p));
#endif
}

template <size_t kBooks, class Code, class Entry>  // 0: any number of them
void SumOf(const Code* HWY_RESTRICT codes, size_t number, const Entry* HWY_RESTRICT entries, size_t vectors,
           float scale, size_t ahead, float* HWY_RESTRICT out) {
  const size_t books = kBooks ? kBooks : number;
  const uint8_t* const next = reinterpret_cast<const uint8_t*>(codes) + ahead;
  for (size_t i = 0; i < vectors * books * sizeof(Code); i += 64) __builtin_prefetch(next + i);
  constexpr size_t kBook = (size_t{1} << 8 * sizeof(Code)) * 8;
  constexpr size_t kAhead = 16;  // vectors: large codebooks lie in the second or third level of the caches
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const auto times = hn::Set(d, scale);
  for (size_t v = 0; v < vectors; ++v, codes += books) {
    if (sizeof(Code) == 2 && v + kAhead < vectors)
      for (size_t b = 0; b < books; ++b)
        __builtin_prefetch(entries + b * kBook + size_t{codes[kAhead * books + b]} * 8);
    for (size_t i = 0; i < 8; i += lanes) {
      auto sum = LoadEntry(d, entries + size_t{codes[0]} * 8 + i);
      for (size_t b = 1; b < books; ++b)
        sum = hn::Add(sum, LoadEntry(d, entries + b * kBook + size_t{codes[b]} * 8 + i));
      hn::StoreU(hn::Mul(sum, times), d, out + v * 8 + i);
    }
  }
}

void Sum(const void* codes, int bits, size_t books, FormatId type, const void* entries, size_t vectors, float scale,
         size_t ahead, float* out) {
  const auto with = [&](const auto* of) HWY_ATTR {
    const auto sum = [&](const auto* from) HWY_ATTR {
      if (books == 1) SumOf<1>(of, 1, from, vectors, scale, ahead, out);
      else if (books == 2) SumOf<2>(of, 2, from, vectors, scale, ahead, out);
      else SumOf<0>(of, books, from, vectors, scale, ahead, out);
    };
    if (type == FormatId::kF16) sum(static_cast<const uint16_t*>(entries));
    else sum(static_cast<const float*>(entries));
  };
  if (bits == 8) with(static_cast<const uint8_t*>(codes));
  else with(static_cast<const uint16_t*>(codes));
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::aqlm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace aqlm {

HWY_EXPORT(Sum);
// Within the namespace, as builds for one instruction set look for the function from here.
void SumOnBest(const void* codes, int bits, size_t books, FormatId type, const void* entries, size_t vectors,
               float scale, size_t ahead, float* out) {
  HWY_DYNAMIC_DISPATCH(Sum)(codes, bits, books, type, entries, vectors, scale, ahead, out);
}

}  // namespace aqlm

void SumEntries(const void* codes, int bits, size_t books, FormatId type, const void* entries, size_t vectors,
                float scale, size_t ahead, float* out) {
  aqlm::SumOnBest(codes, bits, books, type, entries, vectors, scale, ahead, out);
}

}  // namespace edgequant
#endif
