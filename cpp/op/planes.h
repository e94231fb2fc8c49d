// Planes of run-time formats to codes and numbers, rows at a time, and back.
#pragma once
#include "format/plane.h"

namespace edgequant {

// Integers of rows [first, first + count) to out, `stride` bytes a row. `rows` and `cols` are those of the whole grid.
void UnpackRows(const Plane& p, const uint8_t* data, size_t rows, size_t cols, size_t first, size_t count,
                uint8_t* out, size_t stride);

// True if the words of a row hold nothing of other rows: PackRows may then be given any rows, in any order.
bool RowsAreApart(const Plane& p, size_t cols);
// And if a row's codes follow one another.
bool RowsAreStreams(const Plane& p, size_t cols);
// From one row to the next of such a plane.
size_t RowBytesApart(const Plane& p, size_t cols);
// Integers of rows [first, first + count), one byte each, `stride` bytes a row, to their places in the plane.
void PackRows(const Plane& p, const uint8_t* codes, size_t stride, size_t rows, size_t cols, size_t first, size_t count,
              uint8_t* data);
// The whole plane, on all threads.
void PackPlane(const Plane& p, const uint8_t* codes, size_t rows, size_t cols, uint8_t* data);

// Numbers (all cells but integers) of one row, in order; and those of some rows to their places, rounded as stored.
void ReadNumbers(const Plane& p, const uint8_t* data, size_t rows, size_t cols, size_t row, float* out);
void WriteNumbers(const Plane& p, const float* numbers, size_t rows, size_t cols, size_t first, size_t count,
                  uint8_t* data);

}  // namespace edgequant
