// Formats described at run time: a researcher's own, and the planar formats of the ecosystems, whose codes, scales and
// zeros are separate arrays. Plain data; block.h is the constexpr vocabulary of the formats with kernels of their own.
//
//   weight = value(code) * scale                  value: code - zero, a table's entry, a small float, a codebook's row
//          = (code - zero of the group) * scale   the zero an integer or a float
//          = value(code) * scale + minimum
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace edgequant {

// What the elements of a plane are. kE8M0 is 2^(e - 127); kE4M3 is OCP's (signed, 448 at most).
enum class Cell : uint8_t { kInteger, kF32, kF16, kBF16, kE8M0, kE4M3 };

// One array of elements on a grid of rows x cols (for scales: a column per group), and how their bits lie in its words.
// Words run along the columns of a row, or down the rows of a column. Element i of that axis is split into
// lane = i % lanes, slot = i / lanes % slots, chunk = the rest; its word is chunk * lanes + lane, its place there slot.
struct Plane {
  Cell cell = Cell::kInteger;
  int bits = 0;               // of an element: 1 to 8 for integers; 0: there is no such plane
  int word = 8;               // bits of a word: 8, 16 or 32
  int slots = 0;  // elements of a word; 0: a stream of bits that runs on from word to word, lowest bits first
  bool high_first = false;    // slot 0 in the highest bits of the word
  std::vector<int> order;     // slot order[i] lies at place i
  int lanes = 1;              // 0: the whole axis over the slots
  int lane_unit = 1;          // where lanes is 0, it is rounded up to a multiple of this
  bool down = false;          // words run down the rows
  bool cols_first = false;    // stored transposed: the words of one column (of one word's columns) side by side
  bool chunks_first = false;  // down the rows, transposed: the chunks of rows are stored one after another
  bool flat = false;          // rows follow one another without padding, as one row
  bool trits = false;         // five base-3 digits in a byte, the first most significant, as ceil(v * 256 / 243)
  int fill = 0;               // elements that fill up the last word of a row
  int offset = 0;             // stored = element + offset, modulo 2^bits
  int every = 1, at = 0;      // numbers: one of so many side by side; the shift may be the second beside the scale

  bool present() const { return bits > 0; }
};

enum class Values : uint8_t { kAffine, kTable, kGroupTable, kMinifloat, kCodebook };
enum class Zero : uint8_t { kNone, kInteger, kFloat, kMinimum };

// How the reference encoder of a format finds the scale of a group; effort "fast" does the same.
enum class Rule : uint8_t {
  kNone,       // there is no reference: a short search
  kExtreme,    // the weight of largest magnitude goes to the lowest value, so that the scale may be negative
  kAbsMax,     // largest magnitude / rule_reach
  kRangeZero,  // the range, zero included, over all codes; the zero point rounded
  kRange,      // the range over all codes, the minimum its lower end
  kEdge,       // MLX: the range, then the end of larger magnitude made exact
  kAbsMean,    // mean magnitude (BitNet)
  kPowerOfTwo, // 2^(floor(log2(largest magnitude)) - floor(log2(highest value))) (OCP MX)
};
enum class Rounding : uint8_t { kHalfEven, kHalfAway, kHalfUp };

// What rows of weights, and activations, go through first: an orthonormal mix of runs of columns, which spreads
// outliers.
struct Transform {
  bool hadamard = false;
  int block = 0;       // columns that are mixed, a power of two from 16 up; 0: the largest that divides the row
  uint64_t seed = 1;   // of the signs of the columns; 0: none
};

struct Scheme {
  std::string name;

  // ---- What a code means
  Values values = Values::kAffine;
  int bits = 4;                  // of a code, 1 to 8; of a codebook up to 16, above 8 an even number
  int codes = 16;                // different ones, up to 1 << bits
  int dim = 1;                   // weights per code: 1, or that of a codebook
  float zero = 0;                // kAffine: value = code - zero
  int exponent_bits = 0;         // kMinifloat: the rest is one sign bit and the mantissa
  int exponent_bias = 0;
  float highest = 0;             // kMinifloat: larger magnitudes are not written
  std::vector<float> table;      // kTable: one value per code; kCodebook: codes x dim; empty where learned
  bool learned = false;          // table or codebook come with each tensor

  // ---- Groups: weights that share a scale
  int group = 32;                // along a row; 0: the whole row
  int group_rows = 1;            // rows; 0: all of them
  bool pad_cols = false;         // codes are stored for whole groups
  Zero zeros = Zero::kNone;
  int sub_zero = 0;              // integer scales: value = element - sub_zero
  int super_group = 0;           // two levels: groups along a row that share a `super` number; 0: the whole tensor
  bool divides = false;          // the number of the tensor divides
  std::vector<float> sub_table;  // integer scales are indices of this

  // ---- Planes
  Plane code, scale, shift, super, super_shift, entries;  // shift: zeros or minima; entries: tables of groups
  bool interleaved = false;      // one array of blocks, each with its part of every plane in this order:
  int block = 0;                 //   super, super_shift, scale, shift, entries, code; weights of a block

  Transform transform;           // the codes are those of transformed rows

  // ---- The reference encoder
  Rule rule = Rule::kNone;
  float rule_reach = 0;
  Rounding rounding = Rounding::kHalfEven;
  bool divide = false;           // codes from x / scale, else from x * (1 / scale)
  bool rounded_scale = false;    // codes from the scale as stored, else from the one before
  bool negative_scale = true;    // scales may be negative

  bool scaled() const { return scale.present() || super.present(); }
  int digits() const { return bits > 8 ? 2 : 1; }  // elements of the plane of codes that make a code
  bool two_level() const { return super.present() && scale.present(); }
  size_t CodeCols(size_t cols) const {
    return (pad_cols ? GroupsOf(cols) * GroupCols(cols) : cols) / size_t(dim) * size_t(digits());
  }
  size_t GroupCols(size_t cols) const { return group > 0 ? size_t(group) : cols; }
  size_t GroupsOf(size_t cols) const { return (cols + GroupCols(cols) - 1) / GroupCols(cols); }
  size_t GroupRows(size_t rows) const { return group_rows > 0 ? size_t(group_rows) : rows; }
  size_t ScaleRows(size_t rows) const { return (rows + GroupRows(rows) - 1) / GroupRows(rows); }
  size_t SupersOf(size_t cols) const {
    return super_group ? (GroupsOf(cols) + size_t(super_group) - 1) / size_t(super_group) : 1;
  }
};

}  // namespace edgequant
