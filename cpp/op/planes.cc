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

namespace edgequant {
namespace {

constexpr size_t kLine = 64;  // bytes of the cache

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
int PlaceOfSlot(const Plane& p, size_t slot) {
  int place = int(slot);
  for (size_t k = 0; k < p.order.size(); ++k)
    if (p.order[k] == int(slot)) place = int(k);
  return p.high_first ? p.word - (place + 1) * p.bits : place * p.bits;
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
               PlaceOfSlot(p, r / s.lanes % s.slots), p.offset, (1 << p.bits) - 1, out + (r - first) * stride + c);
    }
}

// 32-bit words along the columns, stored with those of a column's neighbours side by side (GPTQ).
void UnpackAcross(const Plane& p, const PlaneShape& s, const uint8_t* data, size_t cols, size_t first, size_t count,
                  uint8_t* out, size_t stride) {
  const size_t per_chunk = 32, words = per_chunk * size_t(p.bits) / size_t(p.word);  // 32 elements fill whole words
  const size_t bytes = size_t(p.word) / 8;
  for (size_t c = 0; c < cols; c += per_chunk)
    for (size_t r = first; r < first + count; ++r) {
      uint8_t stream[32] = {};
      const size_t n = std::min(per_chunk, cols - c), w0 = c / per_chunk * words;
      for (size_t w = 0; w < words && w0 + w < s.words; ++w)
        memcpy(stream + w * bytes, data + ((w0 + w) * s.inner + r) * bytes, bytes);
      UnpackBits(stream, n, p.bits, false, p.offset, out + (r - first) * stride + c);
    }
}
bool IsAcross(const Plane& p) {
  return !p.down && p.cols_first && p.lanes == 1 && p.order.empty() && !p.high_first && !p.trits && !p.flat &&
         (p.slots == 0 || p.slots * p.bits == p.word);
}

// Rows are packed one by one; then the words of all rows that belong together are written side by side.
template <class Word>
void PackAcross(const Plane& p, const PlaneShape& s, const uint8_t* codes, size_t cols, size_t first, size_t count,
                uint8_t* data) {
  const size_t step = s.words + kLine / sizeof(Word);  // rows apart from each other in the cache
  thread_local Scratch memory;
  Word* const stream = memory.Get<Word>(count * step);
  for (size_t r = 0; r < count; ++r) {
    uint8_t* const row = reinterpret_cast<uint8_t*>(stream + r * step);
    PackBits(codes + r * cols, cols, p.bits, false, p.offset, row);
    const size_t used = BytesOfBits(cols, p.bits);
    memset(row + used, 0, s.words * sizeof(Word) - used);
  }
  Word line[kLine / sizeof(Word)];
  for (size_t w = 0; w < s.words; ++w) {
    for (size_t r = 0; r < count; ++r) line[r] = stream[r * step + w];
    memcpy(data + (w * s.inner + first) * sizeof(Word), line, count * sizeof(Word));
  }
}
void PackAcross(const Plane& p, const PlaneShape& s, const uint8_t* codes, size_t cols, size_t first, size_t count,
                uint8_t* data) {
  if (p.word == 8) PackAcross<uint8_t>(p, s, codes, cols, first, count, data);
  else if (p.word == 16) PackAcross<uint16_t>(p, s, codes, cols, first, count, data);
  else PackAcross<uint32_t>(p, s, codes, cols, first, count, data);
}

// Words that run down the rows, stored column by column, where no byte holds parts of a slot (AWQ, torchao).
bool IsBytesDown(const Plane& p) {
  return p.down && p.cols_first && p.slots > 0 && p.lanes > 0 && !p.trits && !p.flat && 8 % p.bits == 0;
}
void PackBytesDown(const Plane& p, const PlaneShape& s, const uint8_t* codes, size_t rows, size_t cols, size_t first,
                   size_t count, uint8_t* data) {
  const size_t bytes = size_t(p.word) / 8, per = size_t(8 / p.bits), chunk = s.lanes * s.slots;
  const size_t begin = first / chunk * s.lanes, end = std::min(s.words, (first + count + chunk - 1) / chunk * s.lanes);
  std::vector<const uint8_t*> from((end - begin) * bytes * per, nullptr);
  for (size_t w = begin; w < end; ++w)
    for (size_t slot = 0; slot < s.slots; ++slot) {
      const size_t row = w / s.lanes * chunk + slot * s.lanes + w % s.lanes;
      const size_t place = size_t(PlaceOfSlot(p, slot) / p.bits);
      if (row < rows) from[(w - begin) * bytes * per + place] = codes + (row - first) * cols;
    }
  PackColumns(from.data(), (end - begin) * bytes, cols, p.bits, p.offset, data + begin * bytes, s.inner * bytes);
}

// Words along the columns whose neighbours hold neighbours, with other slots further on (HQQ, I2_S).
bool IsSpread(const Plane& p, const PlaneShape& s) {
  return !p.down && !p.cols_first && p.slots > 0 && s.lanes > 1 && !p.trits;
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
      const int bit = PlaceOfSlot(p, slot);
      for (size_t k = 0; k < std::min(count, n - i); ++k) line[k] |= uint32_t((codes[i + k] + p.offset) & mask) << bit;
    }
    for (size_t k = 0; k < count; ++k) WriteWord(out, p.word, w + k, line[k]);
    w += count;
  }
}

}  // namespace

void UnpackRows(const Plane& p, const uint8_t* data, size_t rows, size_t cols, size_t first, size_t count,
                uint8_t* out, size_t stride) {
  const PlaneShape s = ShapeOf(p, rows, cols);
  if (IsStream(p) && IsByteAligned(p, cols)) {
    const size_t row_bytes = RowBytesOf(p, s, cols);
    for (size_t r = first; r < first + count; ++r, out += stride) {
      if (p.trits) UnpackTrits(data + r * row_bytes, cols, out);
      else UnpackBits(data + r * row_bytes, cols, p.bits, p.high_first, p.offset, out);
    }
  } else if (p.down && p.slots > 0 && !p.trits) {
    UnpackDown(p, s, data, cols, first, count, out, stride);
  } else if (IsAcross(p)) {
    UnpackAcross(p, s, data, cols, first, count, out, stride);
  } else if (IsSpread(p, s)) {
    const size_t bytes = size_t(p.word) / 8;  // runs of neighbours in one slot of neighbouring words
    for (size_t r = first; r < first + count; ++r, out += stride) {
      const uint8_t* const words = data + (p.flat ? 0 : r * s.inner * bytes);
      size_t i = p.flat ? r * cols : 0;
      for (size_t c = 0; c < cols;) {
        const size_t lane = i % s.lanes, n = std::min(s.lanes - lane, cols - c);
        ReadSlot(p.word, words + (i / (s.lanes * s.slots) * s.lanes + lane) * bytes, bytes, n,
                 PlaceOfSlot(p, i / s.lanes % s.slots), p.offset, (1 << p.bits) - 1, out + c);
        i += n;
        c += n;
      }
    }
  } else {
    for (size_t r = first; r < first + count; ++r, out += stride)
      for (size_t c = 0; c < cols; ++c) out[c] = uint8_t(ReadElement(p, s, data, r, c, cols));
  }
}

bool RowsAreApart(const Plane& p, size_t cols) { return IsStream(p) && IsByteAligned(p, cols); }
size_t RowBytesApart(const Plane& p, size_t cols) { return RowBytesOf(p, ShapeOf(p, 1, cols), cols); }

void PackRows(const Plane& p, const uint8_t* codes, size_t stride, size_t rows, size_t cols, size_t first, size_t count,
              uint8_t* data) {
  const PlaneShape s = ShapeOf(p, rows, cols);
  const size_t row_bytes = RowBytesOf(p, s, cols);
  for (size_t r = first; r < first + count; ++r, codes += stride) {
    uint8_t* const out = data + r * row_bytes;
    if (p.trits) {
      PackTrits(codes, cols, out);
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

size_t TileRows(const Plane& p) {
  const size_t bytes = size_t(p.word) / 8;
  if (IsAcross(p)) return kLine / bytes;
  if (!IsBytesDown(p)) return 0;
  const size_t lanes = size_t(p.lanes);
  return std::max<size_t>(1, kLine / (lanes * bytes)) * lanes * size_t(p.slots);
}

void PackTile(const Plane& p, const uint8_t* codes, size_t rows, size_t cols, size_t first, size_t count,
              uint8_t* data) {
  const PlaneShape s = ShapeOf(p, rows, cols);
  if (IsAcross(p)) PackAcross(p, s, codes, cols, first, count, data);
  else PackBytesDown(p, s, codes, rows, cols, first, count, data);
}

void PackPlane(const Plane& p, const uint8_t* codes, size_t rows, size_t cols, uint8_t* data) {
  const PlaneShape s = ShapeOf(p, rows, cols);
  if (RowsAreApart(p, cols)) {
    ParallelFor(rows, 16, [&](size_t begin, size_t end) {
      PackRows(p, codes + begin * cols, cols, rows, cols, begin, end - begin, data);
    });
    return;
  }
  const size_t bytes = size_t(p.word) / 8;
  if (const size_t tile = TileRows(p)) {
    ParallelFor(rows, tile, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; r += tile)
        PackTile(p, codes + r * cols, rows, cols, r, std::min(tile, end - r), data);
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
            const int bit = PlaceOfSlot(p, slot);
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
  if (p.cols_first) ReadCells(p.cell, data + row * bytes, rows * bytes, cols, 1, out);
  else ReadCells(p.cell, data + row * cols * bytes, 0, 1, cols, out);
}
void WriteNumbers(const Plane& p, const float* numbers, size_t rows, size_t cols, size_t first, size_t count,
                  uint8_t* data) {
  const size_t bytes = size_t(p.bits) / 8;
  if (!p.cols_first || cols == 1) return WriteCells(p.cell, numbers, count * cols, data + first * cols * bytes);
  uint8_t cells[256];  // columns of the stored matrix: the numbers of a row go to lines of their own
  const size_t at_once = sizeof cells / bytes;
  for (size_t r = first; r < first + count; ++r, numbers += cols)
    for (size_t c = 0; c < cols; c += at_once) {
      const size_t n = std::min(at_once, cols - c);
      WriteCells(p.cell, numbers + c, n, cells);
      for (size_t k = 0; k < n; ++k) memcpy(data + ((c + k) * rows + r) * bytes, cells + k * bytes, bytes);
    }
}

}  // namespace edgequant
