// How the bits of 16 rows move from a format's blocks to the lines of a panel: a list of moves, derived bit by bit from
// both descriptions when the program runs, so formats made by a user pack as fast as the built-in ones.
//
// A chunk of a row is 256 weights. 16 bytes of it in all rows (a quad) are transposed to four lines of 16 words, a word
// per row; every line to be made is an OR of such lines, shifted and masked. Q4_0 takes two for a line of its panel.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/panel.h"

namespace edgequant {

inline constexpr int kPackChunk = 256;       // weights of a row: a whole number of blocks, groups and units
inline constexpr int kMaxChunkBytes = 512;
inline constexpr int kMaxPackSources = 256;  // lines of words

struct PackTerm {
  uint16_t source, shift;  // the source counts from the line's own first
  uint32_t mask;           // of the shifted word
};
struct PackLine {
  uint16_t line, source;
};
// Lines that are made alike, from other sources: members [first, last). Terms [begin, left) are shifted to the right,
// or not at all; [left, end) to the left.
struct PackPattern {
  uint16_t first, last, begin, left, end;
};

class PackPlan {
 public:
  // Of words of a chunk that is read from rows of bytes, or, without any bytes, of lines that are there already.
  explicit PackPlan(int chunk_bytes) : chunk_bytes_(chunk_bytes) {}
  // Behind `other`, whose words are still there.
  static PackPlan After(const PackPlan& other);
  // Bit `from` of the chunk becomes bit `to` of each word of `line`. Words are read at multiples of 4 bytes from byte
  // `phase`; what comes from one field should have one phase.
  void Move(int from, int phase, int line, int to);
  // Before that: the word at `byte` holds a stream of 1 or 2 bits. It is put in a panel's order first, which then takes
  // one term where it would have taken 30 or 7.
  void Reorder(int byte, int bits);
  void Finish(int lines);  // after the last Move
  size_t chunk_bytes() const { return size_t(chunk_bytes_); }

  struct Stream {
    uint16_t source, bits;
  };
  std::vector<Stream> streams;
  std::vector<uint16_t> quads;  // first bytes; word i of quad q is source 4 q + i
  std::vector<PackTerm> terms;
  std::vector<PackLine> members;
  std::vector<PackPattern> patterns;
  size_t lines = 0;
  size_t quads_read = 0, streams_ordered = 0;  // those that come first, by the other plan

 private:
  struct Moved {
    int source, shift;
    uint32_t mask;
  };
  int SourceOf(int byte);
  int chunk_bytes_;
  std::vector<std::vector<Moved>> moved_;  // of each line
};

// From one byte per code, as they lie in a row, to the lines of a chunk's units.
const PackPlan& BytePlan(int bits);

// Where the codes of a chunk lie: the lowest bit of each, and a byte from which on words are best read.
struct CodePlaces {
  int bits = 8, chunk_bytes = kPackChunk;
  int first[kPackChunk], phase[kPackChunk] = {};
};
// From there to the lines of a chunk's units of panels with `panel_bits` per code.
PackPlan PlanOfCodes(const CodePlaces& at, int panel_bits);

// Codes that stand for several weights: a row of up to 16 bits for each, as two planes of bytes.
struct PackRows {
  static constexpr int kMost = 2048;
  int count = 128;       // a power of two
  bool in_pairs = false;  // the inner two nibbles of two codes change places, so that lower nibbles are side by side
  alignas(64) uint8_t low[kMost] = {};
  alignas(64) uint8_t high[kMost] = {};
  void Set(int code, uint32_t row) {
    while (count <= code) count *= 2;
    low[code] = uint8_t(row);
    high[code] = uint8_t(row >> 8);
  }
};

// What is known before the first row is seen.
struct PackRecipe {
  enum class Signs : uint8_t { kNone, kFree, kOdd, kShift };

  PackRecipe(const Block& block, const PanelLayout& layout);

  PanelLayout layout;
  int block_weights, block_bytes, chunk_bytes;

  // To lines of the panel; of codes for several weights each: to lines of the codes' lower bytes, of the bits above
  // them if there are any, and of signs, a bit per weight (kShift: bits 0, 2, 4, 6 for eight weights each).
  PackPlan codes;
  uint8_t code_minus = 0;  // subtracted from every byte

  // Lines of codes; 0: there are no such. `units` then makes the panel's lines from lines of the rows' lower bytes, of
  // their upper bytes, and of signs in the panel's order, `sign_step` apart.
  int code_lines = 0, sign_step = 1;
  bool wide_codes = false;
  Signs signs = Signs::kNone;  // kOdd: bit 7 of each 8 is the parity of the others
  PackRows rows;
  PackPlan units{0};

  // Numbers of 16 bits: from a byte of the chunk to a byte of the group's header, behind the numbers of other groups.
  struct Number {
    uint16_t from, group, to;
  };
  std::vector<Number> numbers;
  // Bytes per group: words of four groups, first of scales, then of minima; then, if the number is in pieces, one line
  // of them per block.
  PackPlan scales{0};
  int scale_words = 0, min_words = 0, piece_lines = 0;
  uint8_t scale_minus = 0;

 private:
  void SetBits(const Block& b);
  void SetTrits(const Block& b);
  void SetGrid(const Block& b);
  void MoveRowBits(int k, int code, int at, int bits);
  void SetScales(const Block& b);
};

}  // namespace edgequant
