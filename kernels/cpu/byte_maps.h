// The value maps of a description as tables of signed bytes, made by the compiler. Where bytes stand for halves or
// eighths, the scale takes the factor: a power of two, so nothing is rounded differently.
#pragma once
#include <type_traits>

#include "kernels/cpu/access.h"

namespace edgequant {

// A table of up to 16 values as bytes, doubled until no fraction is left.
struct ByteTable {
  bool ok = true;
  float factor = 1;
  alignas(16) int8_t values[16] = {};
};
constexpr ByteTable ByteTableOf(const Map& map) {
  ByteTable t;
  for (int doubling = 1; doubling <= 4; doubling *= 2) {
    t.ok = true;
    t.factor = 1.0f / float(doubling);
    for (int k = 0; k < 16 && t.ok; ++k) {
      const float v = map.values[k] * float(doubling);
      t.ok = v >= -128 && v <= 127 && v == float(int(v));
      if (t.ok) t.values[k] = int8_t(v);
    }
    if (t.ok) break;
  }
  return t;
}

// The rows of a grid, one after another; moved up already and divided by the shift where there is one.
template <int kCount>
struct GridRows {
  alignas(64) int8_t values[kCount] = {};
};
template <const Block& kB>
constexpr auto GridRowsOf() {
  constexpr GridTable grid = *kB.map.grid;
  GridRows<grid.rows * grid.dim> rows;
  const float up = kB.map.shift, scale = up != 0 ? 1 / up : 1;
  for (int k = 0; k < grid.rows * grid.dim; ++k)
    rows.values[k] = int8_t((float(GridValue(grid, k / grid.dim, k % grid.dim)) + up) * scale);
  return rows;
}
template <const Block& kB>
inline constexpr auto kGridRows = GridRowsOf<kB>();

// The scale of the bytes that stand for the values of a block.
constexpr Level ScaleOfBytes(const Block& b) {
  Level s = b.scale;
  if (b.map.kind == MapKind::kTable) s.factor *= ByteTableOf(b.map).factor;
  if (b.map.kind == MapKind::kGrid && b.map.shift != 0) s.factor *= b.map.shift;
  return s;
}

// body(0), body(step) ... body((count - 1) * step), each as a constant.
template <int kCount, int kStep, int kFirst = 0, class Body>
constexpr void ForEach(const Body& body) {
  if constexpr (kCount > 0) {
    body(std::integral_constant<int, kFirst>());
    ForEach<kCount - 1, kStep, kFirst + kStep>(body);
  }
}

}  // namespace edgequant
