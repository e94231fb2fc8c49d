// Many rows of activations: panels are decoded to int8 a strip and a block of k at a time, then multiplied in tiles.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/panel.h"

namespace edgequant {

inline constexpr int kTileRows = 4;      // rows of activations in a tile
inline constexpr int kBlockK = 256;      // k in a block; activations have one scale per block and row
inline constexpr int kMaxStripPanels = 3;

// `panels` panels of a strip, decoded for one block of k. One group has 16 * panels columns.
struct DecodedStrip {
  int panels;
  int8_t* values;     // [k / 4][panels][64]
  float* scale;       // [groups][panels * 16]
  float* minimum;     // the same, only if the layout has minima
  int32_t* start;     // what sums of products begin with
};
// Panel number `index` of the strip, groups [first, first + count) of the panel at `panel`; first is even for groups
// of 16.
using DecodeFn = void (*)(const PanelLayout& layout, const uint8_t* panel, size_t first, size_t count, int index,
                          const DecodedStrip& out);

// kTileRows rows times a strip, over one block of k. All aligned to 64, but x and its scales to 16.
struct TileArgs {
  const DecodedStrip* strip;
  const uint8_t* x;       // [k / 4][kTileRows][4]
  const float* x_sum;     // [groups][kTileRows], times minima
  const float* x_scale;   // [kTileRows]
  int groups, group;
  float* y;               // [kTileRows][panels * 16], added to
};
using TileFn = void (*)(const TileArgs&);

DecodeFn FindDecode(const PanelLayout& layout);
TileFn FindTile(int panels, bool minima);
int StripPanels();          // panels in a strip on this machine
bool ActivationsPlus128();  // how the tile wants x

}  // namespace edgequant
