#include "kernels/cpu/pack_plan.h"

#include <algorithm>

#include "core/error.h"
#include "format/decode.h"

namespace edgequant {

int PackPlan::SourceOf(int byte) {
  for (size_t q = 0; q < quads.size(); ++q) {
    const int at = byte - quads[q];
    if (at >= 0 && at < 16 && at % 4 == 0) return int(q) * 4 + at / 4;
  }
  int first = byte;
  while (first > chunk_bytes_ - 16) first -= 4;
  quads.push_back(uint16_t(first));
  return int(quads.size() - 1) * 4 + (byte - first) / 4;
}

void PackPlan::Reorder(int byte, int bits) { streams.push_back({uint16_t(SourceOf(byte)), uint16_t(bits)}); }

// Where bit p of a word of a stream goes: element 4 i + j to byte j, bits i * bits and up.
static int PanelOrder(int bits, int p) {
  const int element = p / bits;
  return element % 4 * 8 + element / 4 * bits + p % bits;
}

void PackPlan::Move(int from, int phase, int line, int to) {
  const int byte = from / 8, past = ((byte - phase) % 4 + 4) % 4, word = std::clamp(byte - past, 0, chunk_bytes_ - 4);
  const int source = SourceOf(word);
  int bit = from - word * 8;
  for (const Stream& s : streams)
    if (s.source == source) bit = PanelOrder(s.bits, bit);
  const int shift = to - bit;
  if (size_t(line) >= moved_.size()) moved_.resize(size_t(line) + 1);
  std::vector<Moved>& terms_of = moved_[size_t(line)];
  for (Moved& m : terms_of)
    if (m.source == source && m.shift == shift) {
      m.mask |= 1u << to;
      return;
    }
  terms_of.push_back({source, shift, 1u << to});
}

void PackPlan::Finish(int count) {
  moved_.resize(size_t(count));
  for (std::vector<Moved>& of : moved_) {
    std::stable_partition(of.begin(), of.end(), [](const Moved& m) { return m.shift <= 0; });
    PackLine line{uint16_t(terms.size()), uint16_t(terms.size()), 0};
    for (const Moved& m : of) {
      line.left = uint16_t(line.left + (m.shift <= 0));
      terms.push_back({uint16_t(m.source), uint16_t(m.shift <= 0 ? -m.shift : m.shift), m.mask});
    }
    line.end = uint16_t(terms.size());
    lines.push_back(line);
  }
  moved_.clear();
  if (chunk_bytes_ > kMaxChunkBytes || quads.size() * 4 > kMaxPackSources || terms.size() > 0xffff)
    Fail("weights of ", chunk_bytes_, " bytes per ", kPackChunk, " cannot be packed");
}

namespace {

// Bit `bit` of the code of weight k of a chunk, in the lines of its unit.
void MoveCodeBit(PackPlan& plan, int from, int phase, int bits, int k, int bit) {
  const int low = bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1, step = k % kPanelUnit / 4;
  const int width = bit < low ? low : bits - low, per_line = 8 / width;
  const int line = k / kPanelUnit * bits + (bit < low ? 0 : low) + step / per_line;
  plan.Move(from, phase, line, 8 * (k % 4) + width * (step % per_line) + (bit < low ? bit : bit - low));
}

// Calls move(bit in the chunk, phase, bit of the element) for element i of a block that begins at byte `at`. Signs are
// repeated up to bit 7.
template <class F>
void ForBits(const Field& f, int at, int i, const F& move) {
  if (!Covers(f, i)) return;
  const int first = at * 8 + FirstBit(f, i), phase = at + f.start / 8;
  for (int bit = 0; bit < f.bits; ++bit) move(first + bit, phase, f.up + bit);
  if (f.is_signed)
    for (int bit = f.up + f.bits; bit < 8; ++bit) move(first + f.bits - 1, phase, bit);
}

std::vector<uint64_t> GridCodes(const Block& b, const PanelLayout& layout) {
  const GridTable& grid = *b.map.grid;
  const int unit = b.map.shift != 0 ? kShiftUnit : 1, shift = int(b.map.shift * float(unit));
  uint8_t code_of[256] = {};
  for (int c = (1 << layout.bits) - 1; c >= 0; --c) code_of[uint8_t(layout.values[c])] = uint8_t(c);
  std::vector<uint64_t> codes;
  for (int move : {shift, -shift}) {
    codes.resize(move == shift ? 0 : 2048);  // the bit that says which is bit 11
    for (int row = 0; row < grid.rows; ++row) {
      uint64_t v = 0;
      for (int k = 0; k < grid.dim; ++k)
        v |= uint64_t(code_of[uint8_t(GridValue(grid, row, k) * unit + move)]) << 8 * k;
      codes.push_back(v);
    }
    if (shift == 0) break;
  }
  return codes;
}

}  // namespace

const PackPlan& BytePlan(int bits) {
  static const std::vector<PackPlan> plans = [] {
    std::vector<PackPlan> made(8, PackPlan(kPackChunk));
    for (int n : {1, 2, 3, 4, 5, 6, 8}) {
      for (int k = 0; k < kPackChunk; ++k)
        for (int bit = 0; bit < n; ++bit) MoveCodeBit(made[size_t(n - 1)], 8 * k + bit, 0, n, k, bit);
      made[size_t(n - 1)].Finish(kPackChunk / kPanelUnit * n);
    }
    return made;
  }();
  return plans[size_t(bits - 1)];
}

PackRecipe::PackRecipe(const Block& b, const PanelLayout& panel)
    : layout(panel), block_weights(b.n), block_bytes(b.bytes), chunk_bytes(kPackChunk / b.n * b.bytes),
      codes(chunk_bytes), scales(chunk_bytes) {
  const int blocks = kPackChunk / b.n, groups = b.n / layout.group;
  // Codes
  if (b.map.kind == MapKind::kGrid) {
    kind = Codes::kGrid;
    dim = b.map.dim;
    grid = GridCodes(b, layout);
    const int entries = b.n / dim;
    for (int i = 0; i < blocks * entries; ++i) {
      const int at = i / entries * b.bytes;
      const auto move = [&](int from, int phase, int bit) { codes.Move(from, phase, i / 2, i % 2 * 16 + bit); };
      for (const Field& f : b.codes) ForBits(f, at, i % entries, move);
      if (b.map.shift != 0)
        ForBits(b.map.shift_sign, at, i % entries * dim / 8, [&](int from, int phase, int) { move(from, phase, 11); });
    }
    int lines = kPackChunk / dim / 2;
    if (b.map.signs.kind != FieldKind::kNone) {
      sign_line = lines;
      odd_signs = b.map.signs.bits == 7;
      for (int i = 0; i < kPackChunk / 8; ++i)
        ForBits(b.map.signs, i / (b.n / 8) * b.bytes, i % (b.n / 8), [&](int from, int phase, int bit) {
          codes.Move(from, phase, sign_line + i / 4, i % 4 * 8 + bit);
        });
      lines += kPackChunk / 32;
      while (layout.values[last_code] != -layout.values[0]) ++last_code;
    }
    codes.Finish(lines);
  } else if (b.codes[0].kind == FieldKind::kTrits) {
    kind = Codes::kTrits;
    for (int k = 0; k < kPackChunk; ++k)
      for (const Field& f : b.codes) {
        if (!Covers(f, k % b.n)) continue;
        digit[k / 4] = uint8_t(SlotOf(f, k % b.n));
        if (k % 4 != 0 && SlotOf(f, k % b.n) != SlotOf(f, k % b.n - 1))
          Fail("four digits of a step differ in their place");
        ForBits(f, k / b.n * b.bytes, k % b.n,
                [&](int from, int phase, int bit) { codes.Move(from, phase, k / 4, k % 4 * 8 + bit); });
      }
    codes.Finish(kPackChunk / 4);
  } else {
    for (const Field& f : b.codes)
      if (f.kind == FieldKind::kBits && f.lanes * f.slots == 1 && f.chunk_step == f.bits && f.bits <= 2 &&
          f.start % 8 == 0 && b.n * f.bits % 32 == 0)
        for (int word = 0; word < kPackChunk * f.bits / 32; ++word) {
          const int per_block = b.n * f.bits / 32;
          codes.Reorder(word / per_block * b.bytes + f.start / 8 + word % per_block * 4, f.bits);
        }
    for (int k = 0; k < kPackChunk; ++k)
      for (const Field& f : b.codes)
        ForBits(f, k / b.n * b.bytes, k % b.n, [&](int from, int phase, int bit) {
          if (bit < layout.bits) MoveCodeBit(codes, from, phase, layout.bits, k, bit);
        });
    codes.Finish(kPackChunk / kPanelUnit * layout.bits);
    if (layout.bits == 8) code_minus = uint8_t(b.map.zero);
  }
  // Scales
  const bool two_level = layout.scale == PanelScale::kInt8 || layout.scale == PanelScale::kNibble;
  const bool in_pieces = b.scale.pieces.kind != FieldKind::kNone;
  if (in_pieces && !two_level) Fail("scales in pieces need sub-scales");
  const bool whole = panel_detail::IsWhole(b.scale.sub_zero);
  if (layout.scale != PanelScale::kF16) scale_words = (blocks * groups + 3) / 4;
  if (layout.scale == PanelScale::kInt8 && layout.minima) min_words = scale_words;
  if (two_level) scale_minus = uint8_t(int(whole ? b.scale.sub_zero : 2 * b.scale.sub_zero));
  for (int i = 0; i < blocks; ++i) {
    const int at = i * b.bytes;
    if ((two_level && !in_pieces) || layout.scale == PanelScale::kF16)
      for (int j = 0; j < (two_level ? 1 : groups); ++j) {
        const int g = i * groups + j;
        numbers.push_back({uint16_t(at + b.scale.byte + 2 * j), uint16_t(g), 0});
        if (layout.minima)
          numbers.push_back(
              {uint16_t(at + b.offset.byte + 2 * j), uint16_t(g), uint16_t((two_level ? 2 : 4) * kPanelRows)});
      }
    if (layout.scale == PanelScale::kF16) continue;
    for (int j = 0; j < groups; ++j) {
      const int g = i * groups + j, line = g / 4, to = g % 4 * 8;
      if (!two_level) {
        for (int bit = 0; bit < 8; ++bit)
          scales.Move((at + b.scale.byte + j) * 8 + bit, at + b.scale.byte, line, to + bit);
        continue;
      }
      for (const Field& f : b.scale.sub)
        ForBits(f, at, j, [&](int from, int phase, int bit) {
          if (bit + !whole < 8) scales.Move(from, phase, line, to + bit + !whole);
        });
      if (layout.minima)
        for (const Field& f : b.offset.sub)
          ForBits(f, at, j, [&](int from, int phase, int bit) {
            if (bit < 8) scales.Move(from, phase, line + min_words, to + bit + (min_words ? 0 : 4));
          });
    }
    if (in_pieces) {
      const int line = scale_words + min_words + piece_lines++;
      for (int p = 0; p * b.scale.pieces.bits < 16; ++p)
        ForBits(b.scale.pieces, at, p, [&](int from, int phase, int bit) {
          scales.Move(from, phase, line, p * b.scale.pieces.bits + bit);
        });
    }
  }
  scales.Finish(scale_words + min_words + piece_lines);
}

}  // namespace edgequant
