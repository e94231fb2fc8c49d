// Kernels for compact panels of grids (format/grid_panel.h). Activations lie as their steps take them: the 4 x 4 bytes
// of 16 k transposed.
#pragma once
#include "format/grid_panel.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemv.h"

namespace edgequant {

GemvFn FindGridGemv(const PanelLayout& layout, int rows);
// Decodes whole blocks of 256 k only.
DecodeFn FindGridDecode(const PanelLayout& layout);
// Whether this machine looks up rows of a grid in registers; else that is done one by one.
bool GridsAreFast();

}  // namespace edgequant
