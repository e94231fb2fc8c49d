#include "kernels/cpu/panel_limits.h"
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_limits.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/highway.h>

#include "kernels/cpu/tile_lines-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

int32_t Total(const Ints& v) {
  alignas(64) int32_t sums[16];
  StoreInts(v, sums);
  int32_t total = 0;
  for (int32_t s : sums) total ^= s;
  return total;
}

int32_t ReadLines(const void* memory, size_t bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(memory);
  Regs<Ints, 4> sums;
  For<4>([&](auto i) EDGEQUANT_UNROLLED { sums.template At<i>() = SetInts(0); });
  for (const uint8_t* end = p + bytes; p < end; p += 4 * kPanelLine) {
    For<4>([&](auto i) EDGEQUANT_UNROLLED {
      hwy::Prefetch(p + kAhead + i * kPanelLine);
      sums.template At<i>() =
          Plus(sums.template At<i>(), LoadInts(reinterpret_cast<const int32_t*>(p + i * kPanelLine)));
    });
  }
  return Total(
      Plus(Plus(sums.template At<0>(), sums.template At<1>()), Plus(sums.template At<2>(), sums.template At<3>())));
}

template <DotUnit kDot>
int32_t MultiplyLines(size_t turns) {
  alignas(64) static constexpr uint8_t bytes[kPanelLine] = {1, 2, 3, 4, 5, 6, 7, 8};
  Line values = LoadLine(bytes);
  const Quad x = LoadQuad(bytes);
  constexpr int kSums = kParts == 1 ? 16 : 16 / kParts;  // as many as registers allow
  Regs<Ints, kSums> sums;
  For<kSums>([&](auto i) EDGEQUANT_UNROLLED { sums.template At<i>() = SetInts(i); });
  for (size_t t = 0; t < turns * 16 / kSums / kTileSteps<kDot>; ++t) {
    Keep(values);
    For<kSums>([&](auto i) EDGEQUANT_UNROLLED {
      sums.template At<i>() = DotMost<kDot>(sums.template At<i>(), x, values);
    });
  }
  Ints all = SetInts(0);
  For<kSums>([&](auto i) EDGEQUANT_UNROLLED { all = Plus(all, sums.template At<i>()); });
  return Total(all);
}
int32_t MultiplyMost(size_t turns) {
  return WithDotUnit([&](auto unit) { return MultiplyLines<unit>(turns); });
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(ReadLines);
HWY_EXPORT(MultiplyMost);

}  // namespace panel
using namespace panel;

int32_t ReadMemory(const void* p, size_t bytes) { return HWY_DYNAMIC_DISPATCH(ReadLines)(p, bytes); }
int32_t MultiplyBytes(size_t turns) { return HWY_DYNAMIC_DISPATCH(MultiplyMost)(turns); }

}  // namespace edgequant
#endif
