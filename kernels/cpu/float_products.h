// Rows of weights times rows of activations in f32: dot products along k, a tile of them at a time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/catalog.h"

namespace edgequant {

inline constexpr int kFloatTileColumns = 4;   // rows of weights in a tile
inline constexpr int kMaxFloatTileRows = 6;   // rows of activations

// Each sum adds up FloatLanes() partial sums, which go through k in order, whatever the tile or the blocks of k are.
// Where both sides are bf16 and the processor multiplies those in pairs, a lane holds two numbers of each.
struct FloatTileArgs {
  const void* weights[kFloatTileColumns];  // rows of k numbers; no alignment is needed
  const float* x;     // [ceil(k / step)][rows][lanes], zeros behind k; a step is as many numbers as the lanes hold
  size_t k;           // of this block
  float* sums;        // [rows][columns][lanes]: what a block leaves to the next one; aligned to 64
  bool first, last;   // block
  float* out;         // of the last block: row r at out + r * out_stride
  size_t out_stride;
  const uint8_t* ahead[kFloatTileColumns];  // what is prefetched meanwhile, `ahead_size` bytes per number of a row
  size_t ahead_size;
};
using FloatTileFn = void (*)(const FloatTileArgs&);

// For weights of type f32, f16 or bf16 and up to FloatTileRows() rows; `ahead` says whether something is prefetched
// (for f16 and bf16 it always is).
FloatTileFn FindFloatTile(FormatId type, int rows, bool ahead);
// The same for pairs of bf16, whose products and sums are those of f32, but numbers below 2^-126 count as 0.
FloatTileFn FindPairTile(int rows, bool ahead);
bool MultipliesPairs();  // whether this processor does
size_t FloatLanes();
int FloatTileRows();

}  // namespace edgequant
