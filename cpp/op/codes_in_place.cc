#include "op/codes_in_place.h"

#include <string.h>

#include <algorithm>

#include "kernels/cpu/bits.h"
#include "op/plane_tiles.h"
#include "op/planes.h"

namespace edgequant {

CodesInPlace::CodesInPlace(const SchemeView& q, const PanelLayout& layout, int code_offset)
    : codes(q.arrays[Part::kCode]), minus(uint8_t(code_offset + q.scheme->code.offset)) {
  const Scheme& s = *q.scheme;
  const Plane& p = s.code;
  const size_t code_cols = s.CodeCols(q.cols);
  if (s.dim != 1 || p.trits || (p.offset != 0 && p.bits != 8)) return;
  CodePlaces at;
  at.bits = p.bits;
  const auto streams = [&](size_t weights, size_t bytes, size_t begin) {
    at.chunk_bytes = int(size_t(kPackChunk) / weights * bytes);
    for (int k = 0; k < kPackChunk; ++k) {
      const int bit = k % int(weights) * p.bits;
      at.phase[k] = k / int(weights) * int(bytes) + int(begin);
      at.first[k] = 8 * at.phase[k] + (p.high_first ? bit ^ (8 - p.bits) : bit);
    }
    plans.push_back(PlanOfCodes(at, layout.bits));
  };
  if (s.interleaved) {
    const BlockLayout block = LayoutOf(s);
    if (kPackChunk % s.block != 0 || size_t(kPackChunk / s.block) * block.bytes > size_t(kMaxChunkBytes)) return;
    row_bytes = stride = q.cols / size_t(s.block) * block.bytes;
    streams(size_t(s.block), block.bytes, block.begin[int(Part::kCode)]);
    return;
  }
  side_by_side = PlaneTile::Fits(p) && !p.down && p.word == 32;
  if (side_by_side || RowsAreStreams(p, code_cols)) {
    row_bytes = BytesOfBits(q.cols, p.bits);
    stride = side_by_side ? 4 * q.rows : RowBytesApart(p, code_cols);
    streams(kPackChunk, size_t(kPackChunk * p.bits / 8), 0);
    return;
  }
  const PlaneShape shape = ShapeOf(p, q.rows, code_cols);
  const size_t period = shape.lanes * shape.slots;
  if (p.word != 8 || p.cols_first || shape.slots == 0) return;
  if (!p.down && period <= kPackChunk && kPackChunk % period == 0 && (!p.flat || code_cols % period == 0)) {
    stride = p.flat ? code_cols / shape.slots : shape.inner;
    row_bytes = q.cols / shape.slots;
    at.chunk_bytes = int(kPackChunk / shape.slots);
    for (size_t k = 0; k < kPackChunk && q.cols % period == 0; ++k)
      at.first[k] = int(k / period * shape.lanes + k % shape.lanes) * 8 +
                    BitOfSlot(p, int(k / shape.lanes % shape.slots));
    if (q.cols % period == 0) plans.push_back(PlanOfCodes(at, layout.bits));
    return;
  }
  rows_of_slot = p.down ? shape.lanes : p.flat && shape.lanes % code_cols == 0 ? shape.lanes / code_cols : 0;
  if (rows_of_slot % kPanelRows != 0 || rows_of_slot == 0 || period < (p.down ? q.rows : q.rows * code_cols)) return;
  row_bytes = q.cols, stride = code_cols;
  for (size_t slot = 0; slot < shape.slots; ++slot) {
    for (int k = 0; k < kPackChunk; ++k) at.first[k] = 8 * k + BitOfSlot(p, int(slot));
    plans.push_back(PlanOfCodes(at, layout.bits));
  }
}

void CodesInPlace::CopyWords(size_t first, size_t rows, uint8_t* out) const {
  constexpr size_t kAhead = 8;  // words
  const size_t words = (row_bytes + 3) / 4;
  for (size_t w = 0; w < words; ++w) {
    const uint8_t* const from = codes + w * stride + 4 * first;
    if (w + kAhead < words)
      for (size_t i = 0; i < 4 * rows; i += kPanelLine) __builtin_prefetch(from + kAhead * stride + i);
    for (size_t i = 0; i < 4 * rows; i += kPanelLine)
      memcpy(out + i * words + w * kPanelLine, from + i, std::min<size_t>(kPanelLine, 4 * rows - i));
  }
}

}  // namespace edgequant
