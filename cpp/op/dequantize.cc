#include "op/dequantize.h"

#include <algorithm>
#include <vector>

#include "core/threads.h"
#include "kernels/cpu/dequantize.h"

namespace edgequant {
namespace {

// What one call of the kernel decodes when the result is converted afterwards: stays in the first-level cache.
constexpr size_t kTile = 2048;
// Weights per task: small against a matrix, large against the cost of handing out a task.
constexpr size_t kTask = 1 << 16;

}  // namespace

void Dequantize(const TensorView& q, FormatId to, void* out) {
  if (to != FormatId::kF32 && to != FormatId::kF16 && to != FormatId::kBF16)
    Fail("weights are decoded to f32, f16 or bf16, not to ", NameOf(to));
  RowBytes(q.format, q.cols);  // throws if rows do not divide
  const Block& b = BlockOf(q.format);
  const size_t n = size_t(b.n), blocks = q.rows * (q.cols / n);
  ParallelFor(blocks, std::max<size_t>(1, kTask / n), [&](size_t begin, size_t end) {
    if (to == FormatId::kF32) {
      DequantizeBlocks(q.format, q.data + begin * size_t(b.bytes), end - begin, static_cast<float*>(out) + begin * n);
      return;
    }
    std::vector<float> tile(std::max(kTile, n));
    const size_t step = tile.size() / n;
    for (size_t at = begin; at < end; at += step) {
      const size_t count = std::min(step, end - at);
      DequantizeBlocks(q.format, q.data + at * size_t(b.bytes), count, tile.data());
      uint16_t* half = static_cast<uint16_t*>(out) + at * n;
      if (to == FormatId::kF16)
        DemoteToF16(tile.data(), count * n, half);
      else
        DemoteToBF16(tile.data(), count * n, half);
    }
  });
}

void DequantizeRow(FormatId format, const uint8_t* row, size_t cols, float* out) {
  DequantizeBlocks(format, row, RowBytes(format, cols) / size_t(BlockOf(format).bytes), out);
}

}  // namespace edgequant
