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
  uint16_t source, shift;
  uint32_t mask;  // of the shifted word
};
// Terms [begin, left) are shifted to the right, or not at all; [left, end) to the left.
struct PackLine {
  uint16_t begin, left, end;
};

class PackPlan {
 public:
  explicit PackPlan(int chunk_bytes) : chunk_bytes_(chunk_bytes) {}
  // Bit `from` of the chunk becomes bit `to` of each word of `line`. Words are read at multiples of 4 bytes from byte
  // `phase`; what comes from one field should have one phase.
  void Move(int from, int phase, int line, int to);
  // Before that: the word at `byte` holds a stream of 1 or 2 bits. It is put in a panel's order first, which then takes
  // one term where it would have taken 30 or 7.
  void Reorder(int byte, int bits);
  void Finish(int lines);  // after the last Move

  struct Stream {
    uint16_t source, bits;
  };
  std::vector<Stream> streams;
  std::vector<uint16_t> quads;  // first bytes; word i of quad q is source 4 q + i
  std::vector<PackTerm> terms;
  std::vector<PackLine> lines;

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

// What is known before the first row is seen.
struct PackRecipe {
  enum class Codes : uint8_t { kBits, kTrits, kGrid };

  PackRecipe(const Block& block, const PanelLayout& layout);

  PanelLayout layout;
  int block_weights, block_bytes, chunk_bytes;
  Codes kind = Codes::kBits;

  // kBits: to lines of the panel. kTrits: to lines of 4 bytes that hold the digits. kGrid: to pairs of 16-bit rows of
  // the grid, then, if there are signs, to four bytes of them.
  PackPlan codes;
  uint8_t code_minus = 0;            // subtracted from every byte
  uint8_t digit[kPackChunk / 4] = {};  // kTrits: which one of the byte, per step of 4 weights
  std::vector<uint64_t> grid;        // kGrid: codes of the panel, a byte each
  int dim = 0, sign_line = 0;        // weights per row of the grid; where the lines of signs begin, 0: none
  bool odd_signs = false;            // bit 7 of each 8 signs is the parity of the others
  uint8_t last_code = 0;             // with signs: of the largest value

  // Numbers of 16 bits: from a byte of the chunk to a byte of the group's header, behind the numbers of other groups.
  struct Number {
    uint16_t from, group, to;
  };
  std::vector<Number> numbers;
  // Bytes per group: words of four groups, first of scales, then of minima; then, if the number is in pieces, one line
  // of them per block.
  PackPlan scales;
  int scale_words = 0, min_words = 0, piece_lines = 0;
  uint8_t scale_minus = 0;
};

}  // namespace edgequant
