// Many rows of activations: panels are decoded to int8 a strip and a block of k at a time, then multiplied in tiles.
#pragma once
#include <cstddef>
#include <cstdint>

#include "format/panel.h"

namespace edgequant {

inline constexpr int kTileRows = 4;      // rows of activations in a tile
inline constexpr int kBlockK = 256;      // k in a block; activations have one scale per block and row
inline constexpr int kMaxStripPanels = 3;

// `panels` panels of a strip, decoded for one block of k. A row of numbers is one per column, 16 * panels. Layouts with
// two levels have the integers of groups apart, and scale and minimum once per header.
struct DecodedStrip {
  int panels;
  int run;                // of k of a row, side by side: 4 or 8, as the tile wants it
  int8_t* values;         // [k / run][panels][16][run], as DotCodes takes them
  float* scale;           // [groups] rows
  float* minimum;         // the same, only if the layout has minima
  int32_t* sub_scale;     // [groups] rows
  int32_t* sub_minimum;   // [groups / 2] rows of two 16-bit numbers each
};
// Panel number `index` of the strip, groups [first, first + count) of the panel at `panel`; first is even for groups
// of 16.
using DecodeFn = void (*)(const PanelLayout& layout, const uint8_t* panel, size_t first, size_t count, int index,
                          const DecodedStrip& out);

// kTileRows rows times a strip, over one block of k. All aligned to 64, but x and its scales to 16.
struct TileArgs {
  const DecodedStrip* strip;
  const uint8_t* x;       // [k / run][kTileRows][run]
  const int32_t* x_start;  // [groups][kTileRows]: what sums begin with; of headers where those are folded
  const float* x_sum;     // [groups][kTileRows], times minima
  const int32_t* x_pair;  // [groups / 2][kTileRows], times sub-minima: the sums of two groups, 16 bits each
  const float* x_scale;   // [kTileRows]
  int groups, group, groups_per_header;
  float* y;               // [kTileRows][panels * 16], added to
  const uint8_t* ahead;   // prefetched, with what lies ahead_stride behind it for each panel: ahead_step bytes per 4 k
  size_t ahead_stride, ahead_step;
};
using TileFn = void (*)(const TileArgs&);

DecodeFn FindDecode(const PanelLayout& layout);
// For strips of so many panels, and the first `rows` rows of a tile; where there is nothing for less, for all four.
TileFn FindTile(const PanelLayout& layout, int panels, int rows = kTileRows);
int StripPanels();  // panels in a strip on this machine

int TileRun();  // k of a row that lie side by side for tiles on this machine, in x and in the strip
// What tiles on this machine take for the zero of a layout's codes.
int TileZero(const PanelLayout& layout);

}  // namespace edgequant
