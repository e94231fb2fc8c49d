// What the machine can do at best, for benchmarks: reading memory and multiplying bytes, with nothing else.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edgequant {

// Reads `bytes` (a multiple of 256) bytes at p, aligned to 64; returns something that depends on them all.
int32_t ReadMemory(const void* p, size_t bytes);
// `turns` times 16 independent dot products of 64 bytes with 64 bytes, in registers.
int32_t MultiplyBytes(size_t turns);
inline constexpr size_t kProductsPerTurn = 16 * 64;

}  // namespace edgequant
