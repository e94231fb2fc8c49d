// Writes the blocks of grid formats.
#include "format/encode.h"
#include "kernels/cpu/grid_search.h"

namespace edgequant {
namespace {

template <const Block& kB>
void Pack(const GridBlock* blocks, size_t n, uint8_t* out) {
  static constexpr Block f = WithoutGrid(kB);  // all positions fold to constants
  for (; n != 0; --n, ++blocks, out += f.bytes) {
    const GridBlock& b = *blocks;
    uint8_t block[f.bytes] = {};
#pragma GCC unroll 64
    for (int i = 0; i < f.n / f.map.dim; ++i) {
      WriteField(f.codes[0], block, i, b.code[i]);
      WriteField(f.codes[1], block, i, b.code[i]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < f.n / f.scale.sub_group; ++j) WriteField(f.scale.sub[0], block, j, b.scale[j]);
    if constexpr (f.map.signs.kind != FieldKind::kNone)
#pragma GCC unroll 32
      for (int e = 0; e < f.n / 8; ++e) WriteField(f.map.signs, block, e, b.negative[e]);
    if constexpr (f.map.shift != 0)
      for (int e = 0; e < f.n / 8; ++e) WriteField(f.map.shift_sign, block, e, b.minus[e]);
    if constexpr (f.scale.pieces.kind == FieldKind::kNone) {
      memcpy(block + f.scale.byte, &b.d, 2);
    } else {
      for (int at = 0, p = 0; at < 16; at += f.scale.pieces.bits, ++p)
        WriteField(f.scale.pieces, block, p, b.d >> at & ((1 << f.scale.pieces.bits) - 1));
    }
    memcpy(out, block, size_t(f.bytes));
  }
}

template <const Block& kB>
constexpr auto PackOf() {
  if constexpr (kB.map.kind == MapKind::kGrid)
    return &Pack<kB>;
  else
    return nullptr;
}

}  // namespace

void PackGridBlocks(FormatId to, const GridBlock* blocks, size_t n, uint8_t* out) {
  using Packer = void (*)(const GridBlock*, size_t, uint8_t*);
  static constexpr Packer kPackers[] = {
#define EDGEQUANT_X(id, name, block, gguf) PackOf<block>(),
      EDGEQUANT_FORMATS(EDGEQUANT_X)
#undef EDGEQUANT_X
  };
  kPackers[int(to)](blocks, n, out);
}

}  // namespace edgequant
