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

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Words = uint32_t[kPanelRows];  // a word of each row: a line
using DW = hn::CappedTag<uint32_t, kPanelRows>;

// Vectors are of words on every target; four bytes of a word are computed at once without carries between them.
constexpr uint32_t Bytes4(uint32_t value) { return value * 0x01010101u; }

// 4 words of 4 rows, to 4 rows of each word, which are `stride` words apart.
HWY_INLINE void TransposeFour(const uint8_t* const from[4], size_t at, uint32_t* HWY_RESTRICT out, size_t stride) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t r = 0; r < 4; ++r)
    for (size_t i = 0; i < 4; ++i) memcpy(out + i * stride + r, from[r] + at + 4 * i, 4);
#else
  const hn::CappedTag<uint32_t, 4> d;
  const hn::CappedTag<uint64_t, 2> d64;
  const hn::Repartition<uint8_t, decltype(d)> d8;
  const auto a = hn::BitCast(d, hn::LoadU(d8, from[0] + at)), b = hn::BitCast(d, hn::LoadU(d8, from[1] + at));
  const auto c = hn::BitCast(d, hn::LoadU(d8, from[2] + at)), e = hn::BitCast(d, hn::LoadU(d8, from[3] + at));
  const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b)),
             ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
  const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b)),
             ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, ab_low, ce_low)), d, out);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, ce_low)), d, out + stride);
  hn::Store(hn::BitCast(d, hn::InterleaveLower(d64, ab_high, ce_high)), d, out + 2 * stride);
  hn::Store(hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, ce_high)), d, out + 3 * stride);
#endif
}
// Exchanges bits of `mask` with those kDistance above.
template <int kDistance, class V>
HWY_INLINE V SwapBits(V v, uint32_t mask) {
  const auto moved = hn::And(hn::Xor(v, hn::ShiftRight<kDistance>(v)), hn::Set(DW(), mask));
  return hn::Xor(hn::Xor(v, moved), hn::ShiftLeft<kDistance>(moved));
}

// The sources of a plan.
void ReadWords(const PackPlan& plan, const uint8_t* const rows[kPanelRows], Words* HWY_RESTRICT out) {
  for (size_t q = 0; q < plan.quads.size(); ++q)
    for (size_t r = 0; r < kPanelRows; r += 4) TransposeFour(rows + r, plan.quads[q], out[4 * q] + r, kPanelRows);
  const DW d;
  for (const PackPlan::Stream& s : plan.streams)
    for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d)) {
      // which bits change places: PanelOrder() of the plan says the same for one bit
      auto v = hn::Load(d, out[s.source] + r);
      v = s.bits == 1 ? SwapBits<7>(SwapBits<14>(v, 0x0000cccc), 0x00aa00aa)
                      : SwapBits<6>(SwapBits<12>(v, 0x0000f0f0), 0x00cc00cc);
      if (s.bits == 1) v = SwapBits<1>(SwapBits<2>(v, 0x0c0c0c0c), 0x22222222);
      hn::Store(v, d, out[s.source] + r);
    }
}

// One line of a plan, handed to store(vector, first row).
template <class Store>
HWY_INLINE void MakeLine(const PackPlan& plan, size_t line, const Words* HWY_RESTRICT words, const Store& store) {
  const DW d;
  const PackTerm* const terms = plan.terms.data();
  const PackLine l = plan.lines[line];
  for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d)) {
    auto v = hn::Zero(d);
    size_t t = l.begin;
    for (; t < l.left; ++t)
      v = hn::Or(v, hn::And(hn::ShiftRightSame(hn::Load(d, words[terms[t].source] + r), terms[t].shift),
                            hn::Set(d, terms[t].mask)));
    for (; t < l.end; ++t)
      v = hn::Or(v, hn::And(hn::ShiftLeftSame(hn::Load(d, words[terms[t].source] + r), terms[t].shift),
                            hn::Set(d, terms[t].mask)));
    store(v, r);
  }
}
void MakeLines(const PackPlan& plan, size_t first, size_t count, const Words* words, Words* HWY_RESTRICT out) {
  for (size_t i = 0; i < count; ++i)
    MakeLine(plan, first + i, words, [&](auto v, size_t r) HWY_ATTR { hn::Store(v, DW(), out[i] + r); });
}

// Applies f to all vectors of `count` lines.
template <class F>
HWY_INLINE void ForWords(Words* lines, size_t count, const F& f) {
  const DW d;
  uint32_t* const p = *lines;
  for (size_t i = 0; i < count * kPanelRows; i += hn::Lanes(d)) hn::Store(f(hn::Load(d, p + i), i), d, p + i);
}
template <class V>
HWY_INLINE V MinusBytes(V v, uint32_t four) {
  const DW d;
  const auto top = hn::Set(d, Bytes4(128)), less = hn::Set(d, four);
  const auto low = hn::Sub(hn::Or(v, top), hn::AndNot(top, less));
  return hn::Xor(low, hn::AndNot(hn::Xor(v, less), top));
}

// Base-3 digits: number `digit` of the bytes of each step, two bytes at a time.
void DecodeTrits(const PackRecipe& recipe, Words* HWY_RESTRICT steps) {
  const DW d;
  const auto bytes = hn::Set(d, 0x00ff00ffu);
  ForWords(steps, kPackChunk / 4, [&](auto v, size_t i) HWY_ATTR {
    auto even = hn::And(v, bytes), odd = hn::And(hn::ShiftRight<8>(v), bytes);
    for (int k = recipe.digit[i / kPanelRows]; k != 0; --k) {
      even = hn::And(hn::Add(hn::Add(even, even), even), bytes);
      odd = hn::And(hn::Add(hn::Add(odd, odd), odd), bytes);
    }
    even = hn::And(hn::ShiftRight<8>(hn::Add(hn::Add(even, even), even)), bytes);
    odd = hn::AndNot(bytes, hn::Add(hn::Add(odd, odd), odd));
    return hn::Or(even, odd);
  });
}

// Rows of the grid, then the signs of their weights: their codes are sorted by value, so minus a value is the code as
// far from the other end.
void DecodeGrid(const PackRecipe& recipe, Words* HWY_RESTRICT made, Words* HWY_RESTRICT steps) {
  const uint64_t* const grid = recipe.grid.data();
  if (recipe.dim == 8) {
    for (size_t e = 0; e < kPackChunk / 8; ++e)
      for (size_t r = 0; r < kPanelRows; ++r) {
        const uint64_t v = grid[made[e / 2][r] >> e % 2 * 16 & 0xffff];
        steps[2 * e][r] = uint32_t(v);
        steps[2 * e + 1][r] = uint32_t(v >> 32);
      }
  } else {
    for (size_t e = 0; e < kPackChunk / 4; ++e)
      for (size_t r = 0; r < kPanelRows; ++r) steps[e][r] = uint32_t(grid[made[e / 2][r] >> e % 2 * 16 & 0xffff]);
  }
  if (recipe.sign_line == 0) return;
  Words* const signs = made + recipe.sign_line;
  const DW d;
  if (recipe.odd_signs) {  // bit 7 of each byte is the parity of the others
    ForWords(signs, kPackChunk / 32, [&](auto v, size_t) HWY_ATTR {
      auto odd = hn::Xor(v, hn::ShiftRight<4>(v));
      odd = hn::Xor(odd, hn::ShiftRight<2>(odd));
      odd = hn::And(hn::Xor(odd, hn::ShiftRight<1>(odd)), hn::Set(d, Bytes4(1)));
      return hn::Or(v, hn::ShiftLeft<7>(odd));
    });
  }
  const auto last = hn::Set(d, Bytes4(recipe.last_code));
  ForWords(steps, kPackChunk / 4, [&](auto code, size_t i) HWY_ATTR {
    const size_t step = i / kPanelRows;
    const auto nibble = hn::And(
        hn::ShiftRightSame(hn::Load(d, signs[step / 8] + i % kPanelRows), int(step % 8 * 4)), hn::Set(d, 15u));
    // bit j of the nibble to byte j, then to all of its bits
    const auto bits = hn::And(hn::Mul(nibble, hn::Set(d, 0x00204081u)), hn::Set(d, Bytes4(1)));
    const auto minus = hn::Sub(hn::ShiftLeft<8>(bits), bits);
    return hn::Xor(code, hn::And(minus, hn::Xor(code, hn::Sub(last, code))));
  });
}

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
  const size_t lines = size_t(to.layout.bits);
  for (size_t u = 0; u < to.units; ++u) {
    uint32_t* const unit = reinterpret_cast<uint32_t*>(to.Unit(u));
    for (size_t i = 0; i < lines; ++i)
      MakeLine(plan, u * lines + i, words, [&](auto v, size_t r) HWY_ATTR {
        hn::Stream(less == 0 ? v : MinusBytes(v, less), d, unit + i * kPanelRows + r);
      });
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
  if (recipe.scales.lines.empty()) return;
  alignas(64) Words words[kMaxPackSources], made[kPackChunk / 16];
  ReadWords(recipe.scales, rows, words);
  MakeLines(recipe.scales, 0, recipe.scales.lines.size(), words, made);
  const DW d;
  ForWords(made, size_t(recipe.scale_words),
           [&](auto v, size_t) HWY_ATTR { return MinusBytes(v, Bytes4(recipe.scale_minus)); });
  if (layout.scale == PanelScale::kUE4M3)  // seven bits; 0x7f, but not 0xff, is 0
    ForWords(made, size_t(recipe.scale_words), [&](auto v, size_t) HWY_ATTR {
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
  alignas(64) Words words[kMaxPackSources], steps[kPackChunk / 4];
  const size_t row_bytes = cols / size_t(recipe.block_weights) * size_t(recipe.block_bytes);
  ForChunks(rows, row_bytes, size_t(recipe.chunk_bytes), recipe.layout, cols, out,
            [&](const uint8_t* const* chunk, const Target& to) HWY_ATTR {
              ReadWords(recipe.codes, chunk, words);
              if (recipe.kind == PackRecipe::Codes::kBits) {
                StoreUnits(recipe.codes, words, recipe.code_minus, to);
              } else {
                alignas(64) Words made[kPackChunk / 4];
                const bool grid = recipe.kind == PackRecipe::Codes::kGrid;
                MakeLines(recipe.codes, 0, recipe.codes.lines.size(), words, grid ? made : steps);
                if (grid) DecodeGrid(recipe, made, steps);
                else DecodeTrits(recipe, steps);
                StoreUnits(BytePlan(recipe.layout.bits), steps, 0, to);
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
