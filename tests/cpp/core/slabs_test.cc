#include "core/slabs.h"

#include <gtest/gtest.h>
#include <string.h>

#include <random>
#include <vector>

namespace edgequant {
namespace {

// Blocks of all sizes come and go in any order; none may touch another.
TEST(Slabs, BlocksAreAlignedAndApart) {
  std::mt19937 random(1);
  struct Block {
    SlabBytes data;
    size_t bytes;
    uint8_t mark;
  };
  std::vector<Block> blocks;
  const auto check = [](const Block& b) {
    for (size_t i = 0; i < b.bytes; i += 61) ASSERT_EQ(b.data[i], b.mark);
    ASSERT_EQ(b.data[b.bytes - 1], b.mark);
  };
  for (int k = 0; k < 300; ++k) {
    const size_t bytes = size_t{1} << random() % 21 | random() % 1000;
    Block b{AllocateInSlab(k % 97 == 5 ? size_t{9} << 20 : bytes), k % 97 == 5 ? size_t{9} << 20 : bytes, uint8_t(k)};
    ASSERT_EQ(reinterpret_cast<uintptr_t>(b.data.get()) % 64, 0u);
    memset(b.data.get(), b.mark, b.bytes);
    blocks.push_back(std::move(b));
    if (blocks.size() > 40) {
      const size_t at = random() % blocks.size();
      check(blocks[at]);
      blocks.erase(blocks.begin() + ptrdiff_t(at));
    }
  }
  for (const Block& b : blocks) check(b);
}

}  // namespace
}  // namespace edgequant
