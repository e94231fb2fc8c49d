#include "op/planes.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "format/cell.h"
#include "kernels/cpu/bits.h"
#include "kernels/cpu/scheme_decode.h"
#include "kernels/cpu/scheme_search.h"
#include "op/plane_tiles.h"

namespace edgequant {
namespace {

// True if the words of a row are a plain stream of bytes: the fast and the usual case.
bool IsStream(const Plane& p) {
  if (p.down || p.cols_first || p.lanes != 1 || !p.order.empty()) return false;
  if (p.trits || p.slots == 0) return true;
  return p.slots * p.bits == p.word && (!p.high_first || p.word == 8);
}
// A row's bits begin with a byte.
bool IsByteAligned(const Plane& p, size_t cols) {
  return !p.flat || (p.trits ? cols % 5 == 0 : cols * size_t(p.bits) % 8 == 0);
}
size_t RowBytesOf(const Plane& p, const PlaneShape& s, size_t cols) {
  if (!p.flat) return s.inner * size_t(p.word) / 8;
  return p.trits ? cols / 5 : cols * size_t(p.bits) / 8;
}
template <class Word>
Word Load(const uint8_t* p) {
  Word w;
  memcpy(&w, p, sizeof w);
  return w;
}

// out[i] = the `mask`ed bits of word i, `step` bytes apart, less the offset.
template <class Word>
void ReadSlot(const uint8_t* from, size_t step, size_t n, int bit, int offset, int mask, uint8_t* out) {
  if (step == sizeof(Word)) {
    for (size_t i = 0; i < n; ++i) out[i] = uint8_t((int(Load<Word>(from + i * sizeof(Word)) >> bit) - offset) & mask);
  } else {
    for (size_t i = 0; i < n; ++i) out[i] = uint8_t((int(Load<Word>(from + i * step) >> bit) - offset) & mask);
  }
}
void ReadSlot(int word, const uint8_t* from, size_t step, size_t n, int bit, int offset, int mask, uint8_t* out) {
  if (word == 8) ReadSlot<uint8_t>(from, step, n, bit, offset, mask, out);
  else if (word == 16) ReadSlot<uint16_t>(from, step, n, bit, offset, mask, out);
  else ReadSlot<uint32_t>(from, step, n, bit, offset, mask, out);
}

// Words with slots that run down the rows: a row is one slot of a line of words.
void UnpackDown(const Plane& p, const PlaneShape& s, const uint8_t* data, size_t cols, size_t first, size_t count,
                uint8_t* out, size_t stride) {
  constexpr size_t kAtOnce = 256;
  const size_t bytes = size_t(p.word) / 8;
  for (size_t c = 0; c < cols; c += kAtOnce)
    for (size_t r = first; r < first + count; ++r) {
      const size_t word = r / (s.lanes * s.slots) * s.lanes + r % s.lanes;
      const size_t at = p.cols_first ? c * s.inner + word : word * s.inner + c, step = p.cols_first ? s.inner : 1;
      ReadSlot(p.word, data + at * bytes, step * bytes, std::min(kAtOnce, cols - c),
               BitOfSlot(p, int(r / s.lanes % s.slots)), p.offset, (1 << p.bits) - 1, out + (r - first) * stride + c);
    }
}

// Words along the columns whose neighbours hold neighbours, with other slots further on (HQQ, I2_S).
bool IsSpread(const Plane& p, const PlaneShape& s) {
  return !p.down && !p.cols_first && p.slots > 0 && s.lanes > 1 && !p.trits;
}
// Rows are whole chunks of bytes.
bool HasOwnChunks(const Plane& p, size_t cols) {
  return !p.down && !p.cols_first && p.lanes > 1 && p.slots > 1 && p.word == 8 && p.slots * p.bits == 8 && !p.trits &&
         p.fill == 0 && cols % size_t(p.lanes * p.slots) == 0;
}
// Words [first, end) of a line of n such elements.
void PackSpread(const Plane& p, const PlaneShape& s, const uint8_t* codes, size_t n, size_t first, size_t end,
                uint8_t* out) {
  constexpr size_t kAtOnce = 64;
  const int mask = (1 << p.bits) - 1;
  for (size_t w = first; w < end;) {
    const size_t lane = w % s.lanes, count = std::min({kAtOnce, s.lanes - lane, end - w});
    uint32_t line[kAtOnce] = {};
    for (size_t slot = 0; slot < s.slots; ++slot) {
      const size_t i = w / s.lanes * s.lanes * s.slots + slot * s.lanes + lane;
      if (i >= n) break;
      const int bit = BitOfSlot(p, int(slot));
      for (size_t k = 0; k < std::min(count, n - i); ++k) line[k] |= uint32_t((codes[i + k] + p.offset) & mask) << bit;
    }
    for (size_t k = 0; k < count; ++k) WriteWord(out, p.word, w + k, line[k]);
    w += count;
  }
}

}  // namespace

void UnpackRows(const Plane& plane, const uint8_t* data, size_t rows, size_t cols, size_t first, size_t count,
                uint8_t* out, size_t stride) {
  const Plane p = plane.down ? WithSlots(plane) : plane;
  const PlaneShape s = ShapeOf(p, rows, cols);
  if (RowsAreStreams(p, cols)) {
    const size_t row_bytes = RowBytesOf(p, s, cols);
    for (size_t r = first; r < first + count; ++r, out += stride) {
      if (p.trits) UnpackTrits(data + r * row_bytes, cols, out);
      else UnpackBits(data + r * row_bytes, cols, p.bits, p.high_first, p.offset, out);
    }
  } else if (PlaneTile::Fits(p)) {
    thread_local Scratch memory;
    PlaneTile tile(p, rows, cols, memory);
    for (size_t r = first, n; r < first + count; r += n) {
      n = std::min(tile.rows(), first + count - r);
      tile.Read(data, r, n);
      for (size_t k = 0; k < n; ++k, out += stride) tile.Take(r + k, out);
    }
  } else if (HasOwnChunks(p, cols)) {
    const size_t n = s.lanes, step = n * s.slots, row_bytes = RowBytesOf(p, s, cols);
    for (size_t r = first; r < first + count; ++r, out += stride)
      for (size_t slot = 0; slot < s.slots; ++slot)
        TakeSlot(data + r * row_bytes, n, cols / step, step, p.bits, BitOfSlot(p, int(slot)), p.offset,
                 out + slot * n);
  } else if (const RowSlots shared(p, rows, cols); shared.lanes() > 0) {
    for (size_t r = first; r < first + count; ++r, out += stride) shared.Take(data, r, out);
  } else if (p.down && p.slots > 0 && !p.trits) {
    UnpackDown(p, s, data, cols, first, count, out, stride);
  } else if (IsSpread(p, s)) {
    const size_t bytes = size_t(p.word) / 8;  // runs of neighbours in one slot of neighbouring words
    for (size_t r = first; r < first + count; ++r, out += stride) {
      const uint8_t* const words = data + (p.flat ? 0 : r * s.inner * bytes);
      size_t i = p.flat ? r * cols : 0;
      for (size_t c = 0; c < cols;) {
        const size_t lane = i % s.lanes, n = std::min(s.lanes - lane, cols - c);
        const uint8_t* const from = words + (i / (s.lanes * s.slots) * s.lanes + lane) * bytes;
        const int bit = BitOfSlot(p, int(i / s.lanes % s.slots));
        if (p.word == 8 && 8 % p.bits == 0) TakeSlot(from, n, 1, n, p.bits, bit, p.offset, out + c);
        else ReadSlot(p.word, from, bytes, n, bit, p.offset, (1 << p.bits) - 1, out + c);
        i += n;
        c += n;
      }
    }
  } else {
    for (size_t r = first; r < first + count; ++r, out += stride)
      for (size_t c = 0; c < cols; ++c) out[c] = uint8_t(ReadElement(p, s, data, r, c, cols));
  }
}

bool RowsAreStreams(const Plane& p, size_t cols) { return IsStream(p) && IsByteAligned(p, cols); }
bool RowsAreApart(const Plane& p, size_t cols) { return RowsAreStreams(p, cols) || HasOwnChunks(p, cols); }
size_t RowBytesApart(const Plane& p, size_t cols) { return RowBytesOf(p, ShapeOf(p, 1, cols), cols); }

void PackRows(const Plane& p, const uint8_t* codes, size_t stride, size_t rows, size_t cols, size_t first, size_t count,
              uint8_t* data) {
  const PlaneShape s = ShapeOf(p, rows, cols);
  const size_t row_bytes = RowBytesOf(p, s, cols);
  for (size_t r = first; r < first + count; ++r, codes += stride) {
    uint8_t* const out = data + r * row_bytes;
    if (p.trits) {
      PackTrits(codes, cols, out);
    } else if (p.lanes > 1) {
      const size_t n = s.lanes, step = n * s.slots;
      for (size_t slot = 0; slot < s.slots; ++slot)
        PutSlot(codes + slot * n, n, cols / step, step, p.bits, BitOfSlot(p, int(slot)), p.offset, slot > 0, out);
    } else {
      const size_t whole = p.fill ? row_bytes * 8 / size_t(p.bits) : cols;
      if (whole > cols) {
        std::vector<uint8_t> filled(codes, codes + cols);
        filled.resize(whole, uint8_t(p.fill));
        PackBits(filled.data(), whole, p.bits, p.high_first, p.offset, out);
        continue;
      }
      PackBits(codes, cols, p.bits, p.high_first, p.offset, out);
      const size_t used = BytesOfBits(cols, p.bits);
      if (!p.flat && used < row_bytes) memset(out + used, 0, row_bytes - used);
    }
  }
}

void PackPlane(const Plane& plane, const uint8_t* codes, size_t rows, size_t cols, uint8_t* data) {
  const Plane p = plane.down ? WithSlots(plane) : plane;
  const PlaneShape s = ShapeOf(p, rows, cols);
  if (RowsAreApart(p, cols)) {
    ParallelFor(rows, 16, [&](size_t begin, size_t end) {
      PackRows(p, codes + begin * cols, cols, rows, cols, begin, end - begin, data);
    });
    return;
  }
  if (p.down && p.slots == 0 && !p.flat) {  // elements in two words: streams along the rows of the transposed grid
    std::vector<uint8_t> turned(rows * cols);
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < cols; ++c) turned[c * rows + r] = codes[r * cols + c];
    Plane along = p;
    along.down = false;
    along.cols_first = !p.cols_first;
    return PackPlane(along, turned.data(), cols, rows, data);
  }
  const size_t bytes = size_t(p.word) / 8;
  if (PlaneTile::Fits(p)) {
    Scratch unused;
    const size_t at_once = PlaneTile(p, rows, cols, unused).rows();
    ParallelFor(rows, at_once, [&](size_t begin, size_t end) {
      thread_local Scratch memory;
      PlaneTile tile(p, rows, cols, memory);
      for (size_t r = begin; r < end; r += at_once) {
        tile.Begin(r, std::min(at_once, end - r));
        tile.Put(r, codes + r * cols, std::min(at_once, end - r));
        tile.Write(data);
      }
    });
  } else if (p.down && p.slots > 0 && !p.trits) {
    const int mask = (1 << p.bits) - 1;
    ParallelFor(s.words, 16, [&](size_t begin, size_t end) {
      constexpr size_t kAtOnce = 64;  // a transposed plane is written in squares
      uint32_t line[kAtOnce];
      for (size_t c0 = 0; c0 < cols; c0 += kAtOnce)
        for (size_t w = begin; w < end; ++w) {
          const size_t n = std::min(kAtOnce, cols - c0);
          memset(line, 0, sizeof line);
          for (size_t slot = 0; slot < s.slots; ++slot) {
            const size_t r = w / s.lanes * s.lanes * s.slots + slot * s.lanes + w % s.lanes;
            const int bit = BitOfSlot(p, int(slot));
            if (r >= rows) continue;
            for (size_t c = 0; c < n; ++c) line[c] |= uint32_t((codes[r * cols + c0 + c] + p.offset) & mask) << bit;
          }
          for (size_t c = 0; c < n; ++c)
            WriteWord(data, p.word, p.cols_first ? (c0 + c) * s.inner + w : w * s.inner + c0 + c, line[c]);
        }
    });
  } else if (IsSpread(p, s) && p.flat) {
    ParallelFor(s.words, 1 << 14,
                [&](size_t begin, size_t end) { PackSpread(p, s, codes, rows * cols, begin, end, data); });
  } else if (IsSpread(p, s)) {
    ParallelFor(rows, 16, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r)
        PackSpread(p, s, codes + r * cols, cols, 0, s.words, data + r * s.inner * bytes);
    });
  } else {
    memset(data, 0, s.bytes(p));
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < cols; ++c) WriteElement(p, s, data, r, c, cols, codes[r * cols + c]);
  }
}

void ReadNumbers(const Plane& p, const uint8_t* data, size_t rows, size_t cols, size_t row, float* out) {
  const size_t bytes = size_t(p.bits) / 8;
  const size_t every = size_t(p.every), at = size_t(p.at);
  if (p.cols_first) ReadCells(p.cell, data + (row * every + at) * bytes, rows * every * bytes, cols, 1, out);
  else if (every > 1) ReadCells(p.cell, data + (row * cols * every + at) * bytes, every * bytes, cols, 1, out);
  else ReadCells(p.cell, data + row * cols * bytes, 0, 1, cols, out);
}
void WriteNumbers(const Plane& p, const float* numbers, size_t rows, size_t cols, size_t first, size_t count,
                  uint8_t* data) {
  const size_t bytes = size_t(p.bits) / 8;
  const size_t every = size_t(p.every), row_step = p.cols_first ? 1 : cols, col_step = p.cols_first ? rows : 1;
  if (every == 1 && (!p.cols_first || cols == 1))
    return WriteCells(p.cell, numbers, count * cols, data + first * cols * bytes);
  uint8_t cells[256];  // columns of the stored matrix: the numbers of a row go to lines of their own
  const size_t at_once = sizeof cells / bytes;
  for (size_t r = first; r < first + count; ++r, numbers += cols)
    for (size_t c = 0; c < cols; c += at_once) {
      const size_t n = std::min(at_once, cols - c);
      WriteCells(p.cell, numbers + c, n, cells);
      for (size_t k = 0; k < n; ++k) {
        const size_t i = (r * row_step + (c + k) * col_step) * every + size_t(p.at);
        memcpy(data + i * bytes, cells + k * bytes, bytes);
      }
    }
}

}  // namespace edgequant
