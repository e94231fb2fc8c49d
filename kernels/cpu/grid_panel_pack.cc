// Packing by plan (pack_plan.h), from the bits of a block to the lines of the panel at once.
#include "kernels/cpu/grid_panel_pack.h"

#include <string.h>

#include "core/error.h"
#include "format/decode.h"
#include "kernels/cpu/compat.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/grid_panel_pack.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/pack_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMostPieceBytes = 4096;  // of two blocks and their header: 320 and 2 x 26 lines

// Completes 7 of 8 signs. Bits of the two bytes of 8 weights are added up within the first: of the first half of 32 k
// and, two bits up or down, of the second.
template <class V>
HWY_INLINE V CompleteSigns(V v, int dim) {
  const DW d;
  auto odd = hn::Xor(v, hn::ShiftRight<8>(v));
  odd = hn::Xor(odd, hn::ShiftRight<4>(odd));
  odd = hn::And(hn::Xor(odd, hn::ShiftRight<1>(odd)), hn::Set(d, 0x00050005u));
  return hn::Or(v, dim == 8 ? hn::ShiftLeft<9>(odd) : hn::ShiftLeft<12>(odd));
}

// The lines of a block, handed to store(line, first row, vector).
template <class Store>
HWY_INLINE void MakeBlock(const GridRecipe& recipe, const uint8_t* const chunk[kPanelRows], const Store& store) {
  const GridPanel& grid = *recipe.layout.grid;
  alignas(64) Words words[kMaxPackSources];
  ReadWords(recipe.codes, chunk, words);
  if (!grid.trits) {
    const size_t first_sign = size_t(grid.code_lines() + grid.high_lines());
    return MakeLines(recipe.codes, words, [&](size_t line, size_t r, auto v) HWY_ATTR {
      const bool is_sign = line - first_sign < size_t(grid.sign_lines());
      store(line, r, recipe.odd_signs && is_sign ? CompleteSigns(v, grid.dim) : v);
    });
  }
  constexpr size_t kLines = kGridBlock / 32;  // of codes
  alignas(64) Words made[2 * kLines], halves[4 * kLines];
  const size_t flags = recipe.wide_codes ? 2 * kLines : kLines;
  MakeLines(recipe.codes, words, [&](size_t line, size_t r, auto v) HWY_ATTR {
    if (line < flags) return hn::Store(v, DW(), made[line] + r);
    if (recipe.odd_signs && line < flags + kLines) v = hn::Or(v, hn::ShiftLeft<7>(LastSigns(v)));
    hn::Store(v, DW(), halves[2 * kLines + line - flags] + r);
  });
  LookUp(recipe.rows, kLines, made, recipe.wide_codes ? made + kLines : nullptr, halves);
  MakeLines(recipe.units, halves, store);
}

void PackGrid(const GridRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  const PanelLayout& layout = recipe.layout;
  const size_t blocks = cols / kGridBlock, bytes = size_t(recipe.block_bytes), lines = size_t(layout.grid->lines());
  const size_t scale_bytes = size_t(recipe.scale_words) * kPanelLine;
  const size_t behind = kPanelLine + kGridHeaderBlocks * scale_bytes;
  const DW d;
  const hn::CappedTag<uint8_t, kPanelLine> d8;
  alignas(64) static constexpr uint8_t kMissing[kMaxChunkBytes] = {};
  alignas(64) Words words[kMaxPackSources], made[3];
  alignas(64) uint8_t piece[kMostPieceBytes];  // in the cache: memory takes lines in order faster
  const uint8_t* const next = rows[kPanelRows - 1] ? rows[kPanelRows - 1] + blocks * bytes : nullptr;
  for (size_t b = 0; b < blocks; ++b) {
    if (next)  // the next panel's rows, which follow each other
      for (size_t i = 0; i < kPanelRows * bytes; i += kPanelLine)
        __builtin_prefetch(next + kPanelRows * b * bytes + i, 0, 2);
    const uint8_t* chunk[kPanelRows];
    for (size_t r = 0; r < kPanelRows; ++r) chunk[r] = rows[r] ? rows[r] + b * bytes : kMissing;
    const size_t in_header = b % kGridHeaderBlocks;
    // the second block of the last header may be missing
    if (b + 1 == blocks && in_header == 0) memset(piece, 0, layout.grid_bytes);
    uint32_t* const to = reinterpret_cast<uint32_t*>(piece + behind + in_header * lines * kPanelLine);
    MakeBlock(recipe, chunk,
              [&](size_t line, size_t r, auto v) HWY_ATTR { hn::Store(v, d, to + line * kPanelRows + r); });
    ReadWords(recipe.scales, chunk, words);
    MakeLines(recipe.scales, words, made);
    memcpy(piece + kPanelLine + in_header * scale_bytes, made, scale_bytes);
    for (size_t r = 0; r < kPanelRows; ++r) {
      const void* number = &made[recipe.scale_words][r];
      if (recipe.number_byte >= 0) number = chunk[r] + recipe.number_byte;
      memcpy(piece + (in_header * kPanelRows + r) * 2, number, 2);
    }
    if (in_header + 1 < kGridHeaderBlocks && b + 1 < blocks) continue;
    for (size_t i = 0; i < layout.grid_bytes; i += hn::Lanes(d8)) hn::Stream(hn::Load(d8, piece + i), d8, out + i);
    out += layout.grid_bytes;
  }
  hwy::FlushStream();
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace panel {

HWY_EXPORT(PackGrid);

}  // namespace panel
using namespace panel;

void PackGridPanel(const GridRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(PackGrid)(recipe, rows, cols, out);
}

namespace {

// move(bit of the block, first byte of its field, bit of the element) for the bits of element i
template <class Move>
void ForBits(const Field& f, int i, const Move& move) {
  if (f.kind == FieldKind::kNone || !Covers(f, i)) return;
  for (int bit = 0; bit < f.bits; ++bit) move(FirstBit(f, i) + bit, f.start / 8, f.up + bit);
}

}  // namespace

GridRecipe::GridRecipe(const Block& b, const PanelLayout& panel)
    : layout(panel), block_bytes(b.bytes), codes(b.bytes), scales(b.bytes), odd_signs(b.map.signs.bits == 7),
      number_byte(b.scale.pieces.kind == FieldKind::kNone ? b.scale.byte : -1),
      scale_words(panel.grid->scale_lines(panel.group)) {
  if (layout.grid->trits) SetTrits(b);
  else SetRows(b);
  for (int g = 0; g < 8 * scale_words; ++g) {
    const auto move = [&](int from, int phase, int bit) { scales.Move(from, phase, g / 8, g % 8 * 4 + bit); };
    for (const Field& f : b.scale.sub) ForBits(f, g * layout.group / b.scale.sub_group, move);
    if (layout.grid->shift == GridShift::kGroup)
      ForBits(b.map.shift_sign, g * layout.group / 8, [&](int from, int phase, int) { move(from, phase, 3); });
  }
  for (int p = 0; number_byte < 0 && p * b.scale.pieces.bits < 16; ++p)
    ForBits(b.scale.pieces, p, [&](int from, int phase, int bit) {
      scales.Move(from, phase, scale_words, p * b.scale.pieces.bits + bit);
    });
  scales.Finish(scale_words + (number_byte < 0));
}

void GridRecipe::SetRows(const Block& b) {
  const GridPanel& grid = *layout.grid;
  const int dim = grid.dim, high_line = grid.code_lines(), sign_line = high_line + grid.high_lines();
  for (int code = 0; code < kGridBlock / dim; ++code) {
    const int line = code / 4, byte = code % 4;
    for (const Field& f : b.codes)
      ForBits(f, code, [&](int from, int phase, int bit) {
        if (bit < 8) codes.Move(from, phase, line, 8 * byte + bit);
        else codes.Move(from, phase, high_line + (bit - 8) * grid.code_lines() / 8 + line / 8, 8 * byte + line % 8);
      });
    if (grid.shift == GridShift::kCode)
      ForBits(b.map.shift_sign, code, [&](int from, int phase, int) {
        codes.Move(from, phase, sign_line + grid.sign_lines(), 8 * byte + 7 - line % 8);
      });
  }
  for (int eight = 0; eight < kGridBlock / 8 && grid.signs; ++eight)
    ForBits(b.map.signs, eight, [&](int from, int phase, int bit) {
      // two bytes for 8 weights: of weights 0-3 and 4-7
      const int byte = eight % 2 * 2 + bit / 4;
      codes.Move(from, phase, sign_line + eight / 4, 8 * byte + GridSignBit(dim, bit % 4, eight / 2 % 2));
    });
  codes.Finish(grid.lines());
}

void GridRecipe::SetTrits(const Block& b) {
  const GridPanel& grid = *layout.grid;
  constexpr int kLines = kGridBlock / 32;
  for (int row = 0; row < b.map.grid->rows; ++row)
    rows.Set(row, grid.planes[0][row] | uint32_t{grid.planes[1][row]} << 8);
  wide_codes = b.map.grid->rows > 256;
  const int flags = wide_codes ? 2 * kLines : kLines, unit_lines = grid.signs ? 3 : 2;
  for (int code = 0; code < kGridBlock / 8; ++code) {
    const int u = code / 4, odd = code % 4 / 2, to = 8 * (code % 2 * 2 + odd);
    for (const Field& f : b.codes)
      ForBits(f, code, [&](int from, int phase, int bit) {
        codes.Move(from, phase, u + (bit < 8 ? 0 : kLines), to + bit % 8);
      });
    ForBits(b.map.signs, code, [&](int from, int phase, int bit) { codes.Move(from, phase, flags + u, to + bit); });
    ForBits(b.map.shift_sign, code, [&](int from, int phase, int) {
      for (int bit : {0, 4}) codes.Move(from, phase, flags + u, to + bit);
    });
    for (int half = 0; half < 2; ++half) {
      const int j = 8 * (code % 2 * 2 + half), line = u * unit_lines + odd, last = u * unit_lines + 2;
      const int row = 32 * (kLines * half + u) + to, flag = 32 * (2 * kLines + u) + to + 4 * half;
      for (int bit = 0; bit < 5; ++bit) units.Move(row + bit, 0, line, j + bit + grid.signs);
      for (int bit = 0; bit < 2; ++bit) {
        if (grid.signs) units.Move(row + 5 + bit, 0, last, j + 3 * odd + bit);
        else units.Move(row + 5 + bit, 0, line, j + 6 + bit);
      }
      if (!grid.signs) units.Move(flag, 0, line, j + 5);
      for (int i = 0; i < 4 && grid.signs; ++i)
        units.Move(flag + i, 0, i < 3 ? line : last, j + (i == 0 ? 0 : i < 3 ? 5 + i : 3 * odd + 2));
    }
  }
  // Codes of scales lie behind the flags, and then behind the rows and flags.
  const int scale_line = flags + kLines;
  for (int g = 0; g < kGridBlock / layout.group && grid.signs; ++g)
    for (const Field& f : b.scale.sub)
      ForBits(f, g * layout.group / b.scale.sub_group, [&](int from, int phase, int bit) {
        const int to = 8 * (g % 2 * 2 + bit / 2) + 6 + bit % 2;
        codes.Move(from, phase, scale_line + g / 2, to);
        units.Move(32 * (3 * kLines + g / 2) + to, 0, g / 2 * unit_lines + 2, to);
      });
  codes.Finish(grid.signs ? scale_line + kLines : scale_line);
  units.Finish(grid.lines());
}

}  // namespace edgequant
#endif
