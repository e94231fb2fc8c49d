#include "op/float_rows.h"

#include <string.h>

#include <algorithm>

#include "core/threads.h"
#include "kernels/cpu/float_products.h"
#include "op/dequantize.h"

namespace edgequant {
namespace {

constexpr size_t kColumns = kFloatTileColumns;
constexpr size_t kTaskBytes = size_t{128} << 10;  // of weights handed out at a time, read where they lie
constexpr size_t kTilesAtOnce = 16;               // of x in a chunk
// Numbers of a row that become f32 at a time: with those of a tile of x they fit the first-level cache.
constexpr size_t kPiece = 1024;
constexpr size_t kManyRows = 64, kFewRows = 16;   // rows of weights whose sums are kept at a time

size_t SizeOf(FormatId type) { return type == FormatId::kF32 ? 4 : 2; }

}  // namespace

void FloatRows::Fill(const RowsView& x, const Panel& w) {
  const size_t lanes = FloatLanes();
  pairs_ = x.type == FormatId::kBF16 && w.floats->type == FormatId::kBF16 && w.floats->data && MultipliesPairs();
  const size_t step = pairs_ ? 2 * lanes : lanes;
  steps_ = (w.cols + step - 1) / step;
  rows_ = x.rows;
  tiles_ = (rows_ + size_t(FloatTileRows()) - 1) / size_t(FloatTileRows());
  tile_rows_ = tiles_ ? (rows_ + tiles_ - 1) / tiles_ : 0;
  tiles_ = tile_rows_ ? (rows_ + tile_rows_ - 1) / tile_rows_ : 0;
  x_ = memory_.Get<float>(rows_ * steps_ * lanes);
  ParallelFor(tiles_, 1, [&](size_t begin, size_t end) {
    static thread_local Scratch memory;
    float* const row = memory.Get<float>(steps_ * lanes);
    for (size_t t = begin; t < end; ++t) {
      const size_t first = t * tile_rows_, count = std::min(tile_rows_, rows_ - first);
      for (size_t r = 0; r < count; ++r) {
        const uint8_t* const from = x.Row(first + r);
        std::fill(row + w.cols / step * lanes, row + steps_ * lanes, 0.0f);
        if (pairs_) memcpy(row, from, w.cols * SizeOf(x.type));
        else DequantizeRow(x.type, from, w.cols, row);
        for (size_t s = 0; s < steps_; ++s)
          memcpy(x_ + (first * steps_ + s * count + r) * lanes, row + s * lanes, lanes * sizeof(float));
      }
    }
  });
}

size_t FloatRows::Chunks() const { return (tiles_ + kTilesAtOnce - 1) / kTilesAtOnce; }

size_t FloatRows::RowsPerTask(const Panel& w) const {
  if (tiles_ > kFewTiles) return kManyRows;
  const size_t rows = kTaskBytes / std::max<size_t>(1, w.bytes / std::max<size_t>(1, w.rows));
  return std::max(kFewRows, rows / kFewRows * kFewRows);
}

size_t FloatRows::Tasks(const Panel& w) const { return (w.rows + RowsPerTask(w) - 1) / RowsPerTask(w) * Chunks(); }

void FloatRows::Multiply(const Panel& w, size_t task, const Rows& rows, const MutableRowsView& y,
                         const PerColumn& then) const {
  const size_t first_tile = task % Chunks() * kTilesAtOnce, last_tile = std::min(tiles_, first_tile + kTilesAtOnce);
  const size_t begin = task / Chunks() * RowsPerTask(w), end = std::min(w.rows, begin + RowsPerTask(w));
  const size_t at_once = tiles_ > kFewTiles ? kManyRows : kFewRows, first_row = first_tile * tile_rows_;
  const size_t count = std::min(rows_, last_tile * tile_rows_) - first_row, lanes = FloatLanes();
  const FloatWeights& from = *w.floats;
  const bool in_place = InPlace(w);
  const size_t row_bytes = w.cols * SizeOf(from.type);
  const size_t piece = in_place ? std::max<size_t>(1, w.cols) : pairs_ ? 2 * kPiece : kPiece;
  static thread_local Scratch decoded_memory, sums_memory, out_memory;
  float* const decoded = decoded_memory.Get<float>(kColumns * kPiece);
  float* const sums = sums_memory.Get<float>(count * at_once * lanes);
  float* const out = out_memory.Get<float>(count * at_once);
  const bool as_is = in_place || pairs_;  // or turned into f32
  const FormatId type = as_is ? from.type : FormatId::kF32;
  const size_t last_count = std::min(tile_rows_, rows_ - (tiles_ - 1) * tile_rows_);
  FloatTileFn multiply[2][2];  // [whether it is the last tile of all][whether it is the first of the chunk]
  for (int last = 0; last < 2; ++last)
    for (int first = 0; first < 2; ++first) {
      const int in_tile = int(last ? last_count : tile_rows_);
      const bool ahead = first && from.data;
      multiply[last][first] = pairs_ ? FindPairTile(in_tile, ahead) : FindFloatTile(type, in_tile, ahead);
    }
  FloatTileArgs args{};
  args.out_stride = at_once;
  args.ahead_size = SizeOf(from.type) * (in_place ? kColumns : 1);  // in place: line by line in the order of memory
  for (size_t column = begin; column < end; column += at_once) {
    const size_t n = std::min(at_once, end - column);
    const auto multiply_piece = [&](size_t g, size_t k) {
      args.k = std::min(piece, w.cols - k);
      args.first = k == 0, args.last = k + piece >= w.cols;
      for (size_t c = 0; c < kColumns; ++c) {  // columns that do not exist repeat the last one
        const size_t row = column + std::min(g + c, n - 1);
        const uint8_t* const at = from.data ? from.data + row * row_bytes + k * SizeOf(from.type) : nullptr;
        args.weights[c] = as_is ? static_cast<const void*>(at) : decoded + c * kPiece;
        const uint8_t* const first = in_place ? static_cast<const uint8_t*>(args.weights[0]) + c * kPanelLine : at;
        args.ahead[c] = first ? first + kColumns * row_bytes : nullptr;
        if (as_is || g + c >= n || args.k == 0) continue;
        if (at) DequantizeRow(from.type, at, args.k, decoded + c * kPiece);
        else from.decode(row, k, args.k, decoded + c * kPiece);
      }
      args.sums = sums + g * count * lanes;
      for (size_t t = first_tile; t < last_tile; ++t) {
        const bool last = t + 1 == tiles_;
        const size_t in_tile = last ? last_count : tile_rows_;
        args.x = x_ + t * tile_rows_ * steps_ * lanes + k / (pairs_ ? 2 : 1) * in_tile;
        args.out = out + (t - first_tile) * tile_rows_ * at_once + g;
        multiply[last][t == first_tile](args);
        args.sums += in_tile * kColumns * lanes;
      }
    };
    // Of few rows of x all fit the caches, and weights are read in the order of memory; else a piece of x is kept
    // there.
    const size_t k_end = std::max<size_t>(1, w.cols);
    if (tiles_ <= kFewTiles)
      for (size_t g = 0; g < n; g += kColumns)
        for (size_t k = 0; k < k_end; k += piece) multiply_piece(g, k);
    else
      for (size_t k = 0; k < k_end; k += piece)
        for (size_t g = 0; g < n; g += kColumns) multiply_piece(g, k);
    for (size_t i = 0; i < count; ++i) WriteRow(y, rows[first_row + i], column, n, out + i * at_once, then);
  }
}

}  // namespace edgequant
