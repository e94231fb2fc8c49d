// Matrices in run-time formats: their arrays, decoding.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "core/scratch.h"
#include "op/plane_tiles.h"

namespace edgequant {

enum class Part : uint8_t { kSuper, kSuperShift, kScale, kShift, kEntries, kCode };
constexpr int kParts = 6;

const Plane& PlaneOf(const Scheme& s, Part part);

// Elements of a plane over a matrix of rows x cols weights.
struct Grid2 { size_t rows, cols; };
Grid2 GridOf(const Scheme& s, Part part, size_t rows, size_t cols);
// The array of a plane as words, outer x inner.
PlaneShape ArrayOf(const Scheme& s, Part part, size_t rows, size_t cols);

// Where the parts of a block of an interleaved format lie.
struct BlockLayout {
  size_t begin[kParts] = {}, count[kParts] = {};  // bytes; elements
  size_t bytes = 0;
};
BlockLayout LayoutOf(const Scheme& s);

// Throws Error with one sentence if the description contradicts itself, or does not fit rows x cols weights.
void CheckScheme(const Scheme& s);
void CheckFits(const Scheme& s, size_t rows, size_t cols);

// The arrays of a matrix: planes, or the blocks in `code`.
template <class Byte>
struct SchemeArrays {
  Byte* part[kParts] = {};
  Byte*& operator[](Part p) { return part[int(p)]; }
  Byte* operator[](Part p) const { return part[int(p)]; }
};

struct SchemeView {
  const Scheme* scheme;
  size_t rows, cols;
  SchemeArrays<const uint8_t> arrays;
  const float* table = nullptr;  // learned
};

// Codes of more than 8 bits are stored as two integers of half as many, the lower half first.
void SplitCodes(const Scheme& s, const uint16_t* codes, size_t n, uint8_t* out);
void JoinCodes(const Scheme& s, const uint8_t* digits, size_t n, uint16_t* out);

// The integers that codes consist of, in rows [first, first + count), `stride` bytes a row.
void ReadCodes(const SchemeView& q, size_t first, size_t count, uint8_t* codes, size_t stride);
// Effective scale, and zero or minimum, of each group of a row, and (unless null) the tables of its groups. `q` must
// live as long.
class ScaleReader {
 public:
  explicit ScaleReader(const SchemeView& q);
  ~ScaleReader();
  void Read(size_t row, float* scale, float* shift, float* entries);

 private:
  void ReadPart(Part part, size_t row, float* out);
  void TakeRow(Part part, size_t row, uint8_t* out);
  void ReadScaled(Part part, Part super_part, float zero, size_t row, float* out);

  const SchemeView& q_;
  size_t groups_;
  BlockLayout layout_;                 // of interleaved formats
  const uint8_t* end_ = nullptr;
  struct Patterns;
  std::unique_ptr<Patterns> at_once_;  // of integers times one number for each block
  struct Integers {                    // rows [first, end) of a plane in tiles
    std::optional<PlaneTile> tile;
    size_t first = 0, end = 0;
    Scratch memory;
  };
  Integers tiles_[kParts];
  Scratch integers_, super_;
};

// Writes what ReadCodes and ScaleReader read: integers and numbers of rows [first, first + count) of a part.
void WriteIntegers(const Scheme& s, Part part, const uint8_t* values, size_t stride, size_t rows, size_t cols,
                   size_t first, size_t count, uint8_t* array);
void WriteFloats(const Scheme& s, Part part, const float* values, size_t rows, size_t cols, size_t first, size_t count,
                 uint8_t* array);

// Rows [first, first + count) as floats, on all threads.
void DequantizeScheme(const SchemeView& q, size_t first, size_t count, float* out);

}  // namespace edgequant
