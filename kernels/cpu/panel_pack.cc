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

// Panels are made in pieces of whole chunks and headers, in the first-level cache, and streamed to memory from there:
// addresses in order are written twice as fast.
constexpr size_t kMostChunks = 4;  // of a piece: 4 groups of 256
constexpr size_t kMostPieceBytes = kMostChunks * kPackChunk * kPanelRows + kPanelLine;
// Where the lines of codes and the groups of a chunk lie in its piece.
struct Places {
  uint32_t line[kPackChunk / kPanelUnit * 8];
  struct Group {
    uint32_t header, place;  // place: among the groups of the header
  } group[kPackChunk / 16];
};
struct Piece {
  explicit Piece(const PanelLayout& layout)
      : chunks(std::max<size_t>(1, size_t(layout.group * layout.groups_per_header) / kPackChunk)),
        groups(kPackChunk / size_t(layout.group)), bytes(layout.PanelBytes(chunks * kPackChunk)) {
    for (size_t c = 0; c < chunks; ++c) {
      for (size_t u = 0; u < kPackChunk / kPanelUnit; ++u) {
        const size_t k = c * kPackChunk + u * kPanelUnit, g = k / size_t(layout.group);
        const size_t at = layout.CodesAt(g) + k % size_t(layout.group) / kPanelUnit * size_t(layout.bits) * kPanelLine;
        for (size_t i = 0; i < size_t(layout.bits); ++i)
          places[c].line[u * size_t(layout.bits) + i] = uint32_t(at + i * kPanelLine);
      }
      for (size_t j = 0; j < groups; ++j) {
        const size_t g = c * groups + j;
        places[c].group[j] = {uint32_t(layout.HeaderAt(g)), uint32_t(g % size_t(layout.groups_per_header))};
      }
    }
  }
  size_t chunks, groups, bytes;  // chunks of the piece, groups of a chunk
  Places places[kMostChunks];
};
// What a chunk goes to.
struct Target {
  const PanelLayout& layout;
  const Places& places;
  size_t groups;
  uint8_t* piece;
};

void MakeUnits(const PackPlan& plan, const Words* words, uint8_t minus, const Target& to) {
  const DW d;
  const uint32_t less = Bytes4(minus);
  MakeLines(plan, words, [&](size_t line, size_t r, auto v) HWY_ATTR {
    hn::Store(less == 0 ? v : MinusBytes(v, less), d, reinterpret_cast<uint32_t*>(to.piece + to.places.line[line]) + r);
  });
}

// `words`: those of the recipe's codes, and room for more.
void MakeScales(const PackRecipe& recipe, const uint8_t* const rows[kPanelRows], Words* HWY_RESTRICT words,
                const Target& to) {
  const PanelLayout& layout = to.layout;
  const size_t number_bytes = layout.scale == PanelScale::kF16 ? 2 * kPanelRows : 0;
  for (const PackRecipe::Number& n : recipe.numbers) {
    const Places::Group& g = to.places.group[n.group];
    uint8_t* const at = to.piece + g.header + g.place * number_bytes + n.to;
    for (size_t r = 0; r < kPanelRows; ++r) memcpy(at + 2 * r, rows[r] + n.from, 2);
  }
  if (recipe.scales.lines == 0) return;
  alignas(64) Words made[kPackChunk / 16];
  ReadWords(recipe.scales, rows, words);
  MakeLines(recipe.scales, words, made);
  const DW d;
  ForWords(made, size_t(recipe.scale_words),
           [&](auto v) HWY_ATTR { return MinusBytes(v, Bytes4(recipe.scale_minus)); });
  if (layout.scale == PanelScale::kSign)  // odd magnitudes: minus one has all other bits inverted
    ForWords(made, size_t(recipe.scale_words), [&](auto v) HWY_ATTR {
      const auto minus = hn::And(v, hn::Set(d, Bytes4(128)));
      return hn::Xor(v, hn::Sub(minus, hn::ShiftRight<6>(minus)));
    });
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
      const Places::Group& g = to.places.group[first + j];
      uint8_t* const at = to.piece + g.header + behind + g.place * kPanelRows;
      for (size_t r = 0; r < kPanelRows; r += hn::Lanes(d)) {
        const auto byte = hn::And(hn::ShiftRightSame(hn::Load(d, made[w] + r), int(8 * j)), hn::Set(d, 255u));
        hn::StoreU(hn::DemoteTo(hn::Rebind<uint8_t, DW>(), hn::BitCast(hn::RebindToSigned<DW>(), byte)),
                   hn::Rebind<uint8_t, DW>(), at + r);
      }
    }
  }
  for (int p = 0; p < recipe.piece_lines; ++p) {
    const Places::Group& g = to.places.group[p * layout.groups_per_header];
    for (size_t r = 0; r < kPanelRows; ++r)
      memcpy(to.piece + g.header + 2 * r, &made[recipe.scale_words + recipe.min_words + p][r], 2);
  }
}

// 16 rows of bytes, a chunk at a time; what is missing is 0.
class RowChunks {
 public:
  RowChunks(const uint8_t* const rows[kPanelRows], size_t row_bytes, size_t chunk_bytes)
      : rows_(rows), row_bytes_(row_bytes), chunk_bytes_(chunk_bytes),
        next_(rows[kPanelRows - 1] ? rows[kPanelRows - 1] + row_bytes : nullptr),
        all_(std::find(rows, rows + kPanelRows, nullptr) == rows + kPanelRows) {}

  const uint8_t* const* At(size_t number) {
    const size_t at = std::min(number * chunk_bytes_, row_bytes_), count = std::min(chunk_bytes_, row_bytes_ - at);
    if (next_)
      for (size_t i = 0; i < kPanelRows * count; i += kPanelLine)
        __builtin_prefetch(next_ + kPanelRows * at + i, 0, 2);  // to the L2 cache
    for (size_t r = 0; r < kPanelRows; ++r)
      chunk_[r] = rows_[r] && count == chunk_bytes_ ? rows_[r] + at : padded_[r];
    for (size_t r = 0; r < kPanelRows && (!all_ || count < chunk_bytes_); ++r) {
      if (chunk_[r] != padded_[r]) continue;
      if (rows_[r]) memcpy(padded_[r], rows_[r] + at, count);
      memset(padded_[r] + (rows_[r] ? count : 0), 0, chunk_bytes_ - (rows_[r] ? count : 0));
    }
    return chunk_;
  }

 private:
  const uint8_t* const* rows_;
  size_t row_bytes_, chunk_bytes_;
  const uint8_t* next_;  // no processor follows 16 streams by itself; the next panel's rows, side by side, are one
  bool all_;
  alignas(64) uint8_t padded_[kPanelRows][kMaxChunkBytes];
  const uint8_t* chunk_[kPanelRows];
};

// Calls pack(number of the chunk, first group, target) for the `chunks` chunks of a panel.
template <class F>
HWY_INLINE void ForChunks(size_t chunks, const PanelLayout& layout, size_t cols, uint8_t* out, const F& pack) {
  alignas(64) uint8_t made[kMostPieceBytes];
  const Piece piece(layout);
  const size_t bytes = layout.PanelBytes(cols);
  size_t number = 0;
  for (size_t done = 0; done < bytes; done += piece.bytes) {
    if (bytes - done < piece.bytes) memset(made, 0, piece.bytes);  // scales of missing groups
    for (size_t c = 0; c < piece.chunks && number < chunks; ++c, ++number)
      pack(number, number * piece.groups, Target{layout, piece.places[c], piece.groups, made});
    const hn::CappedTag<uint8_t, kPanelLine> d;
    for (size_t i = 0; i < std::min(piece.bytes, bytes - done); i += hn::Lanes(d))
      hn::Stream(hn::Load(d, made + i), d, out + done + i);
  }
  hwy::FlushStream();
}

void Pack(const PackRecipe& recipe, const uint8_t* const rows[kPanelRows], size_t cols, uint8_t* out) {
  alignas(64) Words words[kMaxPackSources], made[kPackChunk / 4];
  const size_t row_bytes = cols / size_t(recipe.block_weights) * size_t(recipe.block_bytes);
  const size_t codes = size_t(recipe.code_lines), chunk_bytes = size_t(recipe.chunk_bytes);
  RowChunks chunks(rows, row_bytes, chunk_bytes);
  ForChunks((row_bytes + chunk_bytes - 1) / chunk_bytes, recipe.layout, cols, out,
            [&](size_t number, size_t, const Target& to) HWY_ATTR {
              const uint8_t* const* const chunk = chunks.At(number);
              ReadWords(recipe.codes, chunk, words);
              MakeScales(recipe, chunk, words, to);
              if (codes == 0) {
                MakeUnits(recipe.codes, words, recipe.code_minus, to);
              } else {
                MakeLines(recipe.codes, words, made);
                LookUp(recipe.rows, codes, made, recipe.wide_codes ? made + codes : nullptr, words);
                if (recipe.signs != PackRecipe::Signs::kNone)
                  OrderSigns(recipe.signs, made + (recipe.wide_codes ? 2 : 1) * codes, size_t(recipe.sign_step),
                             words + 2 * codes);
                MakeUnits(recipe.units, words, 0, to);
              }
            });
}

// The words of a chunk where those of 16 rows lie side by side already.
void CopyWords(const PanelCodes& from, size_t first_byte, Words* HWY_RESTRICT out) {
  const PackPlan& plan = *from.plan;
  for (size_t q = 0; q < plan.quads.size(); ++q)
    for (size_t i = 0; i < 4; ++i) {
      const size_t word = (first_byte + plan.quads[q]) / 4 + i;
      Words& to = out[4 * q + i];
      if (from.count < kPanelRows || 4 * word >= from.row_bytes) memset(to, 0, sizeof to);
      if (4 * word < from.row_bytes) memcpy(to, from.codes + word * from.code_stride, 4 * from.count);
    }
  OrderStreams(plan, out);
}

void PackCodes(const PanelCodes& from, const PanelLayout& layout, size_t cols, uint8_t* out) {
  alignas(64) Words words[kMaxPackSources];
  const PackPlan& plan = *from.plan;
  const uint8_t* rows[kPanelRows];
  const size_t count = layout.GroupsOf(cols), number = layout.number_bytes(), line = kPanelRows * number,
               chunk_bytes = plan.chunk_bytes();
  for (size_t r = 0; r < kPanelRows; ++r)
    rows[r] = r < from.count && !from.side_by_side ? from.codes + r * from.code_stride : nullptr;
  RowChunks chunks(rows, from.row_bytes, chunk_bytes);
  ForChunks((cols + kPackChunk - 1) / kPackChunk, layout, cols, out,
            [&](size_t chunk, size_t first_group, const Target& to) HWY_ATTR {
              if (from.side_by_side) CopyWords(from, chunk * chunk_bytes, words);
              else ReadWords(plan, chunks.At(chunk), words);
              MakeUnits(plan, words, from.minus, to);
              for (size_t j = 0; j < to.groups && first_group + j < count; ++j) {
                const Places::Group& g = to.places.group[j];
                const auto put = [&](const void* numbers, size_t row) {
                  uint8_t* const at = to.piece + g.header + (row * size_t(layout.groups_per_header) + g.place) * line;
                  const uint8_t* const first = static_cast<const uint8_t*>(numbers) + (first_group + j) * number;
                  if (from.count < kPanelRows) memset(at, 0, line);
                  for (size_t r = 0; r < from.count; ++r) {
                    if (number == 2) memcpy(at + 2 * r, first + r * from.group_stride * 2, 2);
                    else memcpy(at + 4 * r, first + r * from.group_stride * 4, 4);
                  }
                };
                put(from.scales, 0);
                if (layout.minima) put(from.minima, 1);
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
