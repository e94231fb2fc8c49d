// A matrix in any catalogued format, as the operations see it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/error.h"
#include "format/catalog.h"

namespace edgequant {

// Bytes of one row of `cols` weights; cols must be a multiple of the format's block size.
inline size_t RowBytes(FormatId format, size_t cols) {
  const Block& b = BlockOf(format);
  if (cols % size_t(b.n) != 0)
    Fail(NameOf(format), ": rows of ", cols, " weights are not a multiple of its block of ", b.n);
  return cols / size_t(b.n) * size_t(b.bytes);
}

// Borrowed, contiguous, row-major. f32, f16 and bf16 are formats like any other.
struct TensorView {
  FormatId format;
  const uint8_t* data;
  size_t rows, cols;
};

}  // namespace edgequant
