// Streams of codes of 1 to 8 bits, and of base-3 digits, to bytes and back.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace edgequant {

constexpr size_t BytesOfBits(size_t n, int bits) { return (n * size_t(bits) + 7) / 8; }
constexpr size_t BytesOfTrits(size_t n) { return (n + 4) / 5; }

// src: BytesOfBits(n, bits) bytes, the first code in the lowest bits; high_first (bits 1, 2 and 4): in the highest bits
// of each byte. Subtracts `offset` modulo 2^bits. out: n bytes, and none behind them is touched.
void UnpackBits(const uint8_t* src, size_t n, int bits, bool high_first, int offset, uint8_t* out);

// The same for `blocks` pieces of n codes each, `step` bytes apart; the codes follow one another.
void UnpackBlocks(const uint8_t* src, size_t step, size_t blocks, size_t n, int bits, bool high_first, int offset,
                  uint8_t* out);

// The inverse; `offset` is added, unused bits of the last byte are 0. Codes must be below 2^bits.
void PackBits(const uint8_t* codes, size_t n, int bits, bool high_first, int offset, uint8_t* out);

// Codes of one slot of bytes, from bit `bit` on: with `add` beside what the bytes hold, else alone. `runs` runs of n
// bytes follow one another, their codes are `step` apart. bits: 1, 2, 4 or 8. TakeSlot is the inverse.
void PutSlot(const uint8_t* codes, size_t n, size_t runs, size_t step, int bits, int bit, int offset, bool add,
             uint8_t* out);
void TakeSlot(const uint8_t* bytes, size_t n, size_t runs, size_t step, int bits, int bit, int offset, uint8_t* out);

// `count` lines of n elements of 1, 2 or 4 bytes, and the n columns that they have together, count elements each; steps
// are in bytes. There must be room for WholeSquares(count) lines of WholeSquares(n) elements.
constexpr size_t kMostLines = 256;
constexpr size_t WholeSquares(size_t n) { return (n + 15) / 16 * 16; }
void LinesToColumns(int bytes, const uint8_t* lines, size_t step, size_t count, size_t n, uint8_t* columns,
                    size_t column_step);
void ColumnsToLines(int bytes, const uint8_t* columns, size_t column_step, size_t count, size_t n, uint8_t* lines,
                    size_t step);

// Five digits in each byte; the last byte is filled up with zeros.
void UnpackTrits(const uint8_t* src, size_t n, uint8_t* out);
void PackTrits(const uint8_t* codes, size_t n, uint8_t* out);

}  // namespace edgequant
