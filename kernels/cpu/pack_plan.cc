#include "kernels/cpu/pack_plan.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <tuple>

#include "core/error.h"
#include "format/decode.h"

namespace edgequant {

PackPlan PackPlan::After(const PackPlan& other) {
  PackPlan plan(other.chunk_bytes_);
  plan.quads = other.quads;
  plan.streams = other.streams;
  plan.quads_read = plan.quads.size();
  plan.streams_ordered = plan.streams.size();
  return plan;
}

int PackPlan::SourceOf(int byte) {
  if (chunk_bytes_ == 0) return byte / 4;
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
  const int byte = from / 8, past = ((byte - phase) % 4 + 4) % 4;
  const int word = chunk_bytes_ == 0 ? byte - past : std::clamp(byte - past, 0, chunk_bytes_ - 4);
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
  lines = size_t(count);
  using Key = std::vector<std::tuple<bool, int, int, uint32_t>>;  // to the left?, source, shift, mask
  std::map<Key, std::vector<PackLine>> alike;
  for (int line = 0; line < count; ++line) {
    int first = kMaxPackSources;
    for (const Moved& m : moved_[size_t(line)]) first = std::min(first, m.source);
    Key key;
    for (const Moved& m : moved_[size_t(line)])
      key.push_back({m.shift > 0, m.source - first, std::abs(m.shift), m.mask});
    std::sort(key.begin(), key.end());
    alike[key].push_back({uint16_t(line), uint16_t(key.empty() ? 0 : first)});
  }
  for (const auto& [key, of] : alike) {
    PackPattern p{uint16_t(members.size()), uint16_t(members.size() + of.size()), uint16_t(terms.size()),
                  uint16_t(terms.size()), uint16_t(terms.size() + key.size())};
    for (const auto& [left, source, shift, mask] : key) {
      p.left = uint16_t(p.left + !left);
      terms.push_back({uint16_t(source), uint16_t(shift), mask});
    }
    members.insert(members.end(), of.begin(), of.end());
    patterns.push_back(p);
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

}  // namespace

PackPlan PlanOfCodes(const CodePlaces& at, int panel_bits) {
  PackPlan plan(at.chunk_bytes);
  const int per_word = 32 / at.bits;
  for (int k = 0; k < kPackChunk && at.bits <= 2; k += per_word) {
    bool is_stream = (at.first[k] - 8 * at.phase[k]) % 32 == 0;
    for (int i = 1; i < per_word; ++i) is_stream = is_stream && at.first[k + i] == at.first[k] + i * at.bits;
    if (is_stream) plan.Reorder(at.first[k] / 8, at.bits);
  }
  for (int k = 0; k < kPackChunk; ++k)
    for (int bit = 0; bit < std::min(at.bits, panel_bits); ++bit)
      MoveCodeBit(plan, at.first[k] + bit, at.phase[k], panel_bits, k, bit);
  plan.Finish(kPackChunk / kPanelUnit * panel_bits);
  return plan;
}

const PackPlan& BytePlan(int bits) {
  static const std::vector<PackPlan> plans = [] {
    CodePlaces bytes;
    for (int k = 0; k < kPackChunk; ++k) bytes.first[k] = 8 * k;
    std::vector<PackPlan> made(8, PackPlan(kPackChunk));
    for (int n : {1, 2, 3, 4, 5, 6, 8}) made[size_t(n - 1)] = PlanOfCodes(bytes, n);
    return made;
  }();
  return plans[size_t(bits - 1)];
}

PackRecipe::PackRecipe(const Block& b, const PanelLayout& panel)
    : layout(panel), block_weights(b.n), block_bytes(b.bytes), chunk_bytes(kPackChunk / b.n * b.bytes),
      codes(chunk_bytes) {
  if (b.map.kind == MapKind::kGrid) SetGrid(b);
  else if (b.codes[0].kind == FieldKind::kTrits) SetTrits(b);
  else SetBits(b);
  SetScales(b);
}

void PackRecipe::SetBits(const Block& b) {
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

// Bits `at` and up of the row of a code are bits 0 and up of weight k.
void PackRecipe::MoveRowBits(int k, int code, int at, int bits) {
  for (int bit = 0; bit < bits; ++bit, ++at) {
    int from = 8 * (at < 8 ? code : 4 * code_lines + code) + at % 8;
    if (rows.in_pairs) from = (from & ~12) | (from & 4) << 1 | (from & 8) >> 1;
    MoveCodeBit(units, from, 0, layout.bits, k, bit);
  }
}

// A byte of digits stands for five weights of two bits each.
void PackRecipe::SetTrits(const Block& b) {
  for (int byte = 0; byte < 256; ++byte) {
    uint32_t row = 0;
    for (int slot = 0; slot < 5; ++slot) row |= uint32_t((byte * PowerOf3(slot) & 255) * 3 >> 8) << 2 * slot;
    rows.Set(byte, row);
  }
  std::map<int, int> code_of;  // of the bytes of a chunk
  const auto for_weights = [&](auto&& call) {
    for (int k = 0; k < kPackChunk; ++k)
      for (const Field& f : b.codes)
        if (Covers(f, k % b.n)) call(k, f, k / b.n * b.bytes);
  };
  for_weights([&](int k, const Field& f, int at) {
    const int bit = 8 * at + FirstBit(f, k % b.n), code = code_of.insert({bit / 8, int(code_of.size())}).first->second;
    for (int i = 0; i < 8; ++i) codes.Move(bit + i, at + f.start / 8, code / 4, code % 4 * 8 + i);
  });
  code_lines = int(code_of.size() + 3) / 4;
  for_weights([&](int k, const Field& f, int at) {
    MoveRowBits(k, code_of[at + FirstBit(f, k % b.n) / 8], 2 * SlotOf(f, k % b.n), 2);
  });
  codes.Finish(code_lines);
  units.Finish(kPackChunk / kPanelUnit * layout.bits);
}

void PackRecipe::SetGrid(const Block& b) {
  const GridTable& grid = *b.map.grid;
  const int entries = kPackChunk / grid.dim, per_block = b.n / grid.dim;
  code_lines = entries / 4;
  wide_codes = grid.rows > 256;
  // Nibble k % 4 of a row has weights k and k + 4; those of two rows make a byte.
  rows.in_pairs = true;
  for (int row = 0; row < grid.rows; ++row) {
    uint32_t v = 0;
    for (int k = 0; k < grid.dim; ++k)
      v |= (uint32_t(grid.packed[row]) >> k * grid.bits & ((1u << grid.bits) - 1)) << (k % 4 * 4 + k / 4 * grid.bits);
    rows.Set(row, v);
  }
  for (int i = 0; i < entries; ++i)
    for (const Field& f : b.codes)
      ForBits(f, i / per_block * b.bytes, i % per_block, [&](int from, int phase, int bit) {
        codes.Move(from, phase, i / 4 + (bit < 8 ? 0 : code_lines), i % 4 * 8 + bit % 8);
      });
  sign_step = code_lines / (kPackChunk / 32);  // so that lines of the panel are alike
  const int sign_line = code_lines * (wide_codes ? 2 : 1);
  const bool moves = b.map.shift != 0 && layout.scale != PanelScale::kSign;
  if (moves) signs = Signs::kShift;
  else if (b.map.signs.kind != FieldKind::kNone) signs = b.map.signs.bits == 7 ? Signs::kOdd : Signs::kFree;
  for (int i = 0; i < kPackChunk / 8; ++i)
    ForBits(moves ? b.map.shift_sign : b.map.signs, i / (b.n / 8) * b.bytes, i % (b.n / 8),
            [&](int from, int phase, int bit) {
              codes.Move(from, phase, sign_line + i / 4, moves ? i % 4 * 2 : i % 4 * 8 + bit);
            });
  codes.Finish(sign_line + (signs == Signs::kNone ? 0 : kPackChunk / 32));
  for (int k = 0; k < kPackChunk; ++k) {
    MoveRowBits(k, k / grid.dim, k % 4 * 4 + k % grid.dim / 4 * grid.bits, grid.bits);
    if (signs != Signs::kNone)
      MoveCodeBit(units, 32 * (2 * code_lines + k / 32 * sign_step) + 8 * (k % 4) + k % 32 / 4, 0, layout.bits, k,
                  grid.bits);
  }
  units.Finish(kPackChunk / kPanelUnit * layout.bits);
}

void PackRecipe::SetScales(const Block& b) {
  const int blocks = kPackChunk / b.n, groups = b.n / layout.group;
  scales = PackPlan::After(codes);
  const bool two_level = layout.two_level(), is_sign = layout.scale == PanelScale::kSign;
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
          numbers.push_back({uint16_t(at + (is_sign ? b.scale : b.offset).byte + 2 * j), uint16_t(g),
                             uint16_t((two_level ? 2 : 4) * kPanelRows)});
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
      if (is_sign)
        ForBits(b.map.shift_sign, at, j * layout.group / 8,
                [&](int from, int phase, int) { scales.Move(from, phase, line, to + 7); });
      else if (layout.minima)
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
