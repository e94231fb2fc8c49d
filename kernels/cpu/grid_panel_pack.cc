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

void PackGrid(const GridRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  const PanelLayout& layout = recipe.layout;
  const GridPanel& grid = *layout.grid;
  const size_t blocks = cols / kGridBlock, bytes = size_t(recipe.block_bytes), lines = size_t(grid.lines());
  const size_t pairs = size_t(layout.groups_per_header) / 2, first_sign = size_t(grid.code_lines() + grid.high_lines());
  const DW d;
  alignas(64) static constexpr uint8_t kMissing[kMaxChunkBytes] = {};
  alignas(64) Words words[kMaxPackSources], made[3];
  const uint8_t* const next = rows[kPanelRows - 1] ? rows[kPanelRows - 1] + blocks * bytes : nullptr;
  for (size_t b = 0; b < blocks; ++b) {
    if (next)  // the next panel's rows, which follow each other
      for (size_t i = 0; i < kPanelRows * bytes; i += kPanelLine)
        __builtin_prefetch(next + kPanelRows * b * bytes + i, 0, 2);
    const uint8_t* chunk[kPanelRows];
    for (size_t r = 0; r < kPanelRows; ++r) chunk[r] = rows[r] ? rows[r] + b * bytes : kMissing;
    uint8_t* const header = out + b / kGridHeaderBlocks * layout.grid_bytes;
    const size_t in_header = b % kGridHeaderBlocks, behind = kPanelLine + kGridHeaderBlocks * pairs * kPanelRows;
    // the second block of the last header may be missing
    if (b + 1 == blocks && in_header == 0) memset(header, 0, layout.grid_bytes);
    uint32_t* const to = reinterpret_cast<uint32_t*>(header + behind + in_header * lines * kPanelLine);
    ReadWords(recipe.codes, chunk, words);
    MakeLines(recipe.codes, words, [&](size_t line, size_t r, auto v) HWY_ATTR {
      const bool is_sign = line - first_sign < size_t(grid.sign_lines());
      hn::Stream(recipe.odd_signs && is_sign ? CompleteSigns(v, grid.dim) : v, d, to + line * kPanelRows + r);
    });
    ReadWords(recipe.scales, chunk, words);
    MakeLines(recipe.scales, words, made);
    for (size_t p = 0; p < pairs; ++p)
      for (size_t r = 0; r < kPanelRows; ++r)
        header[kPanelLine + (in_header * pairs + p) * kPanelRows + r] = uint8_t(made[p / 4][r] >> p % 4 * 8);
    for (size_t r = 0; r < kPanelRows; ++r) {
      const void* number = &made[recipe.scale_words][r];
      if (recipe.number_byte >= 0) number = chunk[r] + recipe.number_byte;
      memcpy(header + (in_header * kPanelRows + r) * 2, number, 2);
    }
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

GridRecipe::GridRecipe(const Block& b, const PanelLayout& panel)
    : layout(panel), block_bytes(b.bytes), codes(b.bytes), scales(b.bytes), odd_signs(b.map.signs.bits == 7),
      number_byte(b.scale.pieces.kind == FieldKind::kNone ? b.scale.byte : -1),
      scale_words((layout.groups_per_header / 2 + 3) / 4) {
  const GridPanel& grid = *layout.grid;
  const int dim = grid.dim, high_line = grid.code_lines(), sign_line = high_line + grid.high_lines();
  // move(bit of the block, first byte of its field, bit of the element) for the bits of element i
  const auto for_bits = [](const Field& f, int i, const auto& move) {
    if (f.kind == FieldKind::kNone || !Covers(f, i)) return;
    for (int bit = 0; bit < f.bits; ++bit) move(FirstBit(f, i) + bit, f.start / 8, f.up + bit);
  };
  for (int code = 0; code < kGridBlock / dim; ++code) {
    const int line = code / 4, byte = code % 4;
    for (const Field& f : b.codes)
      for_bits(f, code, [&](int from, int phase, int bit) {
        if (bit < 8) codes.Move(from, phase, line, 8 * byte + bit);
        else codes.Move(from, phase, high_line + (bit - 8) * grid.code_lines() / 8 + line / 8, 8 * byte + line % 8);
      });
    if (grid.shift == GridShift::kCode)
      for_bits(b.map.shift_sign, code, [&](int from, int phase, int) {
        codes.Move(from, phase, sign_line + grid.sign_lines(), 8 * byte + 7 - line % 8);
      });
  }
  for (int eight = 0; eight < kGridBlock / 8 && grid.signs; ++eight)
    for_bits(b.map.signs, eight, [&](int from, int phase, int bit) {
      // two bytes for 8 weights: of weights 0-3 and 4-7
      const int byte = eight % 2 * 2 + bit / 4;
      codes.Move(from, phase, sign_line + eight / 4, 8 * byte + GridSignBit(dim, bit % 4, eight / 2 % 2));
    });
  codes.Finish(grid.lines());
  for (int g = 0; g < layout.groups_per_header; ++g) {
    const auto move = [&](int from, int phase, int bit) { scales.Move(from, phase, g / 8, g % 8 * 4 + bit); };
    for (const Field& f : b.scale.sub) for_bits(f, g, move);
    if (grid.shift == GridShift::kGroup)
      for_bits(b.map.shift_sign, g * layout.group / 8, [&](int from, int phase, int) { move(from, phase, 3); });
  }
  for (int p = 0; number_byte < 0 && p * b.scale.pieces.bits < 16; ++p)
    for_bits(b.scale.pieces, p, [&](int from, int phase, int bit) {
      scales.Move(from, phase, scale_words, p * b.scale.pieces.bits + bit);
    });
  scales.Finish(scale_words + (number_byte < 0));
}

}  // namespace edgequant
#endif
