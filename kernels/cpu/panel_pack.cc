// Packing by plan (pack_plan.h): words of 16 rows are transposed, then only shifts and masks of whole lines are left.
#include "kernels/cpu/panel_pack.h"

#include <string.h>

#include <algorithm>

#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_pack.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/pack_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What a chunk goes to: groups and units of the panel.
struct Target {
  const PanelLayout& layout;
  uint8_t* out;
  size_t first_group, groups, units;  // of the chunk, which begins at k0
  size_t k0;
  uint8_t* Header(size_t g) const { return out + layout.HeaderAt(first_group + g); }
  size_t InHeader(size_t g) const { return (first_group + g) % size_t(layout.groups_per_header); }
  uint8_t* Unit(size_t u) const {
    const size_t k = k0 + u * kPanelUnit, g = k / size_t(layout.group);  // even for groups of 16
    return out + layout.CodesAt(g) + (k - g * size_t(layout.group)) / kPanelUnit * size_t(layout.bits) * kPanelLine;
  }
};

void StoreUnits(const PackPlan& plan, const Words* words, uint8_t minus, const Target& to) {
  const DW d;
  const uint32_t less = Bytes4(minus);
  const size_t per_unit = size_t(to.layout.bits);
  alignas(64) Words made[kPackChunk / kPanelUnit * 8];
  MakeLines(plan, words, [&](size_t line, size_t r, auto v) HWY_ATTR {
    hn::Store(less == 0 ? v : MinusBytes(v, less), d, made[line] + r);
  });
  // In the order of addresses, else memory takes twice as long.
  for (size_t u = 0; u < to.units; ++u) {
    uint32_t* const unit = reinterpret_cast<uint32_t*>(to.Unit(u));
    const uint32_t* const from = made[u * per_unit];
    for (size_t i = 0; i < per_unit * kPanelRows; i += hn::Lanes(d)) hn::Stream(hn::Load(d, from + i), d, unit + i);
  }
}

void StoreScales(const PackRecipe& recipe, const uint8_t* const rows[kPanelRows], const Target& to) {
  const PanelLayout& layout = to.layout;
  const size_t number_bytes = layout.scale == PanelScale::kF16 ? 2 * kPanelRows : 0;
  for (const PackRecipe::Number& n : recipe.numbers) {
    if (n.group >= to.groups) continue;
    uint8_t* const at = to.Header(n.group) + to.InHeader(n.group) * number_bytes + n.to;
    for (size_t r = 0; r < kPanelRows; ++r) memcpy(at + 2 * r, rows[r] + n.from, 2);
  }
  if (recipe.scales.lines == 0) return;
  alignas(64) Words words[kMaxPackSources], made[kPackChunk / 16];
  ReadWords(recipe.scales, rows, words);
  MakeLines(recipe.scales, words, made);
  const DW d;
  ForWords(made, size_t(recipe.scale_words),
           [&](auto v) HWY_ATTR { return MinusBytes(v, Bytes4(recipe.scale_minus)); });
  if (layout.scale == PanelScale::kUE4M3)  // seven bits; 0x7f, but not 0xff, is 0
    ForWords(made, size_t(recipe.scale_words), [&](auto v) HWY_ATTR {
      const auto seven = hn::Set(d, Bytes4(127)), other = hn::Xor(v, seven);
      const auto is_nan = hn::AndNot(hn::Or(hn::Add(hn::And(other, seven), seven), other), hn::Set(d, Bytes4(128)));
      return hn::AndNot(hn::Sub(is_nan, hn::ShiftRight<7>(is_nan)), hn::And(v, seven));
    });
  const bool two_level = layout.scale != PanelScale::kE8M0 && layout.scale != PanelScale::kUE4M3;
  for (int w = 0; w < recipe.scale_words + recipe.min_words; ++w) {
    const bool minima = w >= recipe.scale_words;
    const size_t first = size_t(minima ? w - recipe.scale_words : w) * 4;
    const size_t behind = (two_level ? kPanelLine : 0) + (minima ? size_t(layout.groups_per_header) * kPanelRows : 0);
    for (size_t j = 0; j < 4 && first + j < to.groups; ++j) {
      uint8_t* const at = to.Header(first + j) + behind + to.InHeader(first + j) * kPanelRows;
      for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d)) {
        const auto byte = hn::And(hn::ShiftRightSame(hn::Load(d, made[w] + r), int(8 * j)), hn::Set(d, 255u));
        hn::StoreU(hn::DemoteTo(hn::Rebind<uint8_t, DW>(), hn::BitCast(hn::RebindToSigned<DW>(), byte)),
                   hn::Rebind<uint8_t, DW>(), at + r);
      }
    }
  }
  for (int p = 0; p < recipe.piece_lines; ++p) {
    const size_t g = size_t(p) * size_t(layout.groups_per_header);
    if (g >= to.groups) break;
    for (size_t r = 0; r < kPanelRows; ++r)
      memcpy(to.Header(g) + 2 * r, &made[recipe.scale_words + recipe.min_words + p][r], 2);
  }
}

// Calls pack(rows of the chunk, target) for all chunks of 16 rows; what is missing of a row is 0.
template <class F>
HWY_INLINE void ForChunks(const uint8_t* const rows[kPanelRows], size_t row_bytes, size_t chunk_bytes,
                          const PanelLayout& layout, size_t cols, uint8_t* out, const F& pack) {
  alignas(64) uint8_t padded[kPanelRows][kMaxChunkBytes];
  const size_t groups = layout.GroupsOf(cols), group = size_t(layout.group),
               per_header = size_t(layout.groups_per_header);
  if (groups % per_header != 0) memset(out + layout.HeaderAt(groups), 0, layout.header_bytes());
  // No processor follows 16 streams by itself; the next panel's rows, which follow each other, are one.
  const uint8_t* const next = rows[kPanelRows - 1] ? rows[kPanelRows - 1] + row_bytes : nullptr;
  for (size_t k0 = 0, at = 0; k0 < groups * group; k0 += kPackChunk, at += chunk_bytes) {
    if (next)
      for (size_t i = 0; i < kPanelRows * chunk_bytes; i += kPanelLine)
        __builtin_prefetch(next + kPanelRows * at + i, 0, 2);  // to the L2 cache
    const size_t end = std::min(k0 + kPackChunk, groups * group);
    const size_t count = at < row_bytes ? std::min(chunk_bytes, row_bytes - at) : 0;
    const uint8_t* chunk[kPanelRows];
    for (size_t r = 0; r < kPanelRows; ++r) {
      if (rows[r] && count == chunk_bytes) {
        chunk[r] = rows[r] + at;
        continue;
      }
      if (rows[r]) memcpy(padded[r], rows[r] + at, count);
      memset(padded[r] + (rows[r] ? count : 0), 0, chunk_bytes - (rows[r] ? count : 0));
      chunk[r] = padded[r];
    }
    pack(chunk, Target{layout, out, k0 / group, (end - k0) / group, (end - k0) / kPanelUnit, k0});
  }
  hwy::FlushStream();
}

void Pack(const PackRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  alignas(64) Words words[kMaxPackSources], made[kPackChunk / 4];
  const size_t row_bytes = cols / size_t(recipe.block_weights) * size_t(recipe.block_bytes);
  const size_t codes = size_t(recipe.code_lines);
  ForChunks(rows, row_bytes, size_t(recipe.chunk_bytes), recipe.layout, cols, out,
            [&](const uint8_t* const* chunk, const Target& to) HWY_ATTR {
              ReadWords(recipe.codes, chunk, words);
              if (codes == 0) {
                StoreUnits(recipe.codes, words, recipe.code_minus, to);
              } else {
                MakeLines(recipe.codes, words, made);
                LookUp(recipe.rows, codes, made, recipe.wide_codes ? made + codes : nullptr, words);
                OrderStreams(recipe.units, words);
                if (recipe.signs != PackRecipe::Signs::kNone) {
                  const Words* const signs = made + (recipe.wide_codes ? 2 : 1) * codes;
                  memcpy(words + 2 * codes, signs, sizeof(Words) * (kPackChunk / 32));
                  OrderSigns(recipe.signs, words + 2 * codes);
                }
                StoreUnits(recipe.units, words, 0, to);
              }
              StoreScales(recipe, chunk, to);
            });
}

void PackCodes(const PanelCodes& from, const PanelLayout& layout, size_t cols, uint8_t* out) {
  alignas(64) Words words[kMaxPackSources];
  const PackPlan& plan = BytePlan(layout.bits);
  const uint8_t* rows[kPanelRows];
  for (size_t r = 0; r < kPanelRows; ++r) rows[r] = r < from.count ? from.codes + r * from.code_stride : nullptr;
  ForChunks(rows, cols, kPackChunk, layout, cols, out, [&](const uint8_t* const* chunk, const Target& to) HWY_ATTR {
    ReadWords(plan, chunk, words);
    StoreUnits(plan, words, 0, to);
    for (size_t g = 0; g < to.groups; ++g) {
      uint8_t* const scales = to.Header(g) + to.InHeader(g) * kPanelRows * 2;
      uint8_t* const minima = scales + size_t(layout.groups_per_header) * kPanelRows * 2;
      for (size_t r = 0; r < kPanelRows; ++r) {
        const size_t i = r * from.group_stride + to.first_group + g;
        const uint16_t scale = r < from.count ? from.scales[i] : uint16_t{0};
        memcpy(scales + 2 * r, &scale, 2);
        if (!layout.minima) continue;
        const uint16_t minimum = r < from.count ? from.minima[i] : uint16_t{0};
        memcpy(minima + 2 * r, &minimum, 2);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(Pack);
HWY_EXPORT(PackCodes);

}  // namespace panel
using namespace panel;

void PackPanel(const PackRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(Pack)(recipe, rows, cols, out);
}
void PackPanelCodes(const PanelCodes& from, const PanelLayout& layout, size_t cols, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(PackCodes)(from, layout, cols, out);
}

}  // namespace edgequant
#endif
