#include "kernels/cpu/dequantize.h"

#include "kernels/cpu/access.h"

namespace edgequant {

void DequantizeBlocks(FormatId id, const uint8_t* src, size_t blocks, float* out) {
  switch (FamilyOf(BlockOf(id))) {
    case Family::kNumber: return DequantizeNumber(id, src, blocks, out);
    case Family::kOneLevel: return DequantizeOneLevel(id, src, blocks, out);
    case Family::kTwoLevel: return DequantizeTwoLevel(id, src, blocks, out);
    case Family::kTable: return DequantizeTable(id, src, blocks, out);
    case Family::kGrid: return DequantizeGrid(id, src, blocks, out);
  }
}

}  // namespace edgequant
