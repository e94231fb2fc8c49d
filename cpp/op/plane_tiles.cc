#include "op/plane_tiles.h"

#include <string.h>

#include <algorithm>

#include "kernels/cpu/bits.h"

namespace edgequant {
namespace {

constexpr size_t kLine = 64;             // bytes of the cache
constexpr size_t kPiece = 4 * kLine;     // of a column, side by side: a tile seldom begins with a line
constexpr size_t kInCache = 384 * 1024;  // bytes of lines

// Each row has words of its own, but those of its neighbours lie beside them (GPTQ).
bool IsAcross(const Plane& p) {
  return !p.down && p.cols_first && p.lanes == 1 && p.order.empty() && !p.high_first && !p.trits && !p.flat &&
         (p.slots == 0 || p.slots * p.bits == p.word);
}
// Words down the rows, stored column by column, where no byte holds parts of a slot (AWQ, torchao).
bool IsDown(const Plane& p) {
  return p.down && p.cols_first && WithSlots(p).slots > 0 && p.lanes > 0 && p.lanes * p.word / 8 <= int(kMostLines) &&
         !p.trits && !p.flat && 8 % p.bits == 0;
}

}  // namespace

bool PlaneTile::Fits(const Plane& p) { return IsAcross(p) || IsDown(p); }

PlaneTile::PlaneTile(const Plane& p, size_t rows, size_t cols, Scratch& memory)
    : p_(p.down ? WithSlots(p) : p), shape_(ShapeOf(p_, rows, cols)), cols_(cols), memory_(memory) {
  const size_t word = size_t(p.word) / 8;
  chunk_ = p.down ? shape_.lanes * shape_.slots : 1;
  chunk_lines_ = p.down ? shape_.lanes * word : 1;
  element_ = p.down ? 1 : int(word);
  elements_ = p.down ? cols : shape_.words;
  step_ = WholeSquares(elements_) * size_t(element_) + kLine;  // not a power of two
  const size_t bytes = chunk_lines_ * size_t(element_);
  size_t chunks = std::max<size_t>(1, p.chunks_first ? 1 : kPiece / bytes);
  while (chunks > 1 && chunks * bytes > kLine && chunks * chunk_lines_ * step_ > kInCache) chunks /= 2;
  rows_ = chunks * chunk_;
  for (size_t slot = 0; p.down && slot < shape_.slots; ++slot) {
    const int bit = BitOfSlot(p_, int(slot));
    const size_t byte = size_t(bit) / 8;
    const bool add = std::any_of(slots_.begin(), slots_.end(), [&](const Slot& s) { return s.byte == byte; });
    slots_.push_back({byte, bit % 8, add});
  }
}

void PlaneTile::Cover(size_t first, size_t count) {
  first_ = first / chunk_ * chunk_;
  count_ = (first + count - first_ + chunk_ - 1) / chunk_ * chunk_lines_;
  lines_ = memory_.Get<uint8_t>(WholeSquares(count_) * step_);
}

uint8_t* PlaneTile::LineOf(size_t row, size_t byte) const {
  const size_t chunk = (row - first_) / chunk_, lane = row % shape_.lanes;
  return lines_ + (chunk * chunk_lines_ + lane * size_t(p_.word) / 8 + byte) * step_;
}

void PlaneTile::Begin(size_t first, size_t count) {
  Cover(first, count);
  cleared_ = p_.down && (count % chunk_ != 0 || p_.slots * p_.bits != p_.word);  // bits that no row has are 0
  if (cleared_) memset(lines_, 0, count_ * step_);
}

void PlaneTile::Put(size_t row, const uint8_t* codes, size_t count) {
  for (size_t r = row; r < row + count; ++r, codes += cols_) {
    if (p_.down) {
      const Slot& slot = slots_[r / shape_.lanes % shape_.slots];
      PutSlot(codes, cols_, 1, cols_, p_.bits, slot.bit, p_.offset, slot.add || cleared_, LineOf(r, slot.byte));
    } else {
      uint8_t* const line = lines_ + (r - first_) * step_;
      PackBits(codes, cols_, p_.bits, false, p_.offset, line);
      const size_t used = BytesOfBits(cols_, p_.bits);
      memset(line + used, 0, stream_bytes() - used);
    }
  }
}

template <bool kToPlane, class Byte>
void PlaneTile::Move(Byte* data) const {
  const size_t size = size_t(element_), at_once = p_.chunks_first ? chunk_lines_ : kMostLines;
  const size_t column_step = p_.chunks_first ? chunk_lines_ : shape_.inner * size_t(p_.word) / 8;
  for (size_t k = 0; k < count_; k += at_once) {
    const size_t line = first_ / chunk_ * chunk_lines_ + k, n = std::min(at_once, count_ - k);
    Byte* const columns = data + (p_.chunks_first ? line * cols_ : line * size);
    if constexpr (kToPlane) LinesToColumns(element_, lines_ + k * step_, step_, n, elements_, columns, column_step);
    else ColumnsToLines(element_, columns, column_step, n, elements_, lines_ + k * step_, step_);
  }
}
template void PlaneTile::Move<true>(uint8_t*) const;

void PlaneTile::Read(const uint8_t* data, size_t first, size_t count) {
  Cover(first, count);
  Move<false>(data);
}

void PlaneTile::Take(size_t row, uint8_t* codes) const {
  if (!p_.down) return UnpackBits(Stream(row), cols_, p_.bits, false, p_.offset, codes);
  const Slot& slot = slots_[row / shape_.lanes % shape_.slots];
  TakeSlot(LineOf(row, slot.byte), cols_, 1, cols_, p_.bits, slot.bit, p_.offset, codes);
}

RowSlots::RowSlots(const Plane& p, size_t rows, size_t cols) : p_(p), cols_(cols) {
  if (p.cols_first || p.trits || p.word != 8 || p.slots < 2 || p.slots * p.bits != p.word) return;
  const size_t lanes = ShapeOf(p, rows, cols).lanes;
  if (p.down) lanes_ = p.flat ? 0 : lanes;
  else if (p.flat && lanes % cols == 0) lanes_ = lanes / cols;
  const size_t last = lanes_ ? rows % (lanes_ * slots()) : 0;
  if (last > 0 && last < lanes_) lanes_ = 0;  // bytes that no row begins
}

void RowSlots::Put(size_t row, const uint8_t* codes, uint8_t* data) const {
  const size_t slot = SlotOf(row);
  PutSlot(codes, cols_, 1, cols_, p_.bits, BitOfSlot(p_, int(slot)), p_.offset, slot > 0, data + LineOf(row) * cols_);
}

void RowSlots::Take(const uint8_t* data, size_t row, uint8_t* codes) const {
  TakeSlot(data + LineOf(row) * cols_, cols_, 1, cols_, p_.bits, BitOfSlot(p_, int(SlotOf(row))), p_.offset, codes);
}

}  // namespace edgequant
