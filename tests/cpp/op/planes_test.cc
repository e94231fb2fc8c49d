#include "op/planes.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/scratch.h"

namespace edgequant {
namespace {

std::vector<Plane> Layouts() {
  std::vector<Plane> all;
  const auto add = [&](int bits, int word, auto&&... set) {
    Plane p;
    p.bits = bits;
    p.word = word;
    (set(p), ...);
    all.push_back(p);
  };
  const auto slots = [](Plane& p) { p.slots = p.word / p.bits; };
  const auto down = [](Plane& p) { p.down = true; };
  const auto transposed = [](Plane& p) { p.cols_first = true; };
  for (int bits = 1; bits <= 8; ++bits)
    for (int word : {8, 16, 32}) {
      add(bits, word);
      add(bits, word, slots);
      add(bits, word, slots, down);
      add(bits, word, slots, down, transposed);
      add(bits, word, slots, transposed);
      add(bits, word, slots, down, [](Plane& p) { p.lanes = 0; });
      add(bits, word, slots, [](Plane& p) { p.lanes = 4; });
      add(bits, word, slots, [](Plane& p) { p.high_first = true; });
      add(bits, word, slots, down, [](Plane& p) { p.high_first = true, p.offset = 1; });
      add(bits, word, [](Plane& p) { p.flat = true; });
      add(bits, word, slots, [](Plane& p) { p.flat = true, p.lanes = 0; });
      add(bits, word, transposed);
      add(bits, word, down);
    }
  add(4, 32, slots, down, transposed, [](Plane& p) { p.order = {0, 2, 4, 6, 1, 3, 5, 7}; });
  add(4, 8, slots, down, transposed, [](Plane& p) { p.lanes = 32; });
  add(4, 8, slots, down, transposed, [](Plane& p) { p.lanes = 32, p.chunks_first = true; });
  add(2, 16, slots, down, transposed, [](Plane& p) { p.lanes = 4, p.chunks_first = true; });
  add(8, 8, [](Plane& p) { p.trits = true; });
  return all;
}

// Every layout: PackPlane's bytes read element by element, and UnpackRows gives the elements back.
void CheckLayouts(size_t rows, size_t cols) {
  std::mt19937 random(1);
  for (const Plane& p : Layouts()) {
    const int values = p.trits ? 3 : 1 << p.bits;
    std::vector<uint8_t> codes(rows * cols);
    for (uint8_t& c : codes) c = uint8_t(random() % unsigned(values));
    const PlaneShape s = ShapeOf(p, rows, cols);
    std::vector<uint8_t> data(s.bytes(p) + 1, 0xa5), back(11 * cols);
    PackPlane(p, codes.data(), rows, cols, data.data());
    ASSERT_EQ(data.back(), 0xa5);
    const auto text = [&] {
      return "bits " + std::to_string(p.bits) + " word " + std::to_string(p.word) + " slots " +
             std::to_string(p.slots) + " down " + std::to_string(p.down) + " transposed " +
             std::to_string(p.cols_first) + " flat " + std::to_string(p.flat);
    };
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < cols; ++c)
        ASSERT_EQ(ReadElement(p, s, data.data(), r, c, cols), codes[r * cols + c])
            << text() << " at " << r << ", " << c;
    UnpackRows(p, data.data(), rows, cols, 5, 11, back.data(), cols);
    for (size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], codes[5 * cols + i]) << text() << " at " << i;
    if (!RowsAreApart(p, cols)) continue;
    std::vector<uint8_t> again(data.size(), 0xa5);
    for (size_t r = 0; r < rows; ++r) PackRows(p, &codes[r * cols], cols, rows, cols, r, 1, again.data());
    EXPECT_EQ(again, data) << text();
  }
}
TEST(Planes, EveryElementIsWhereTheDescriptionSays) { CheckLayouts(64, 96); }
TEST(Planes, LastWordsMayBePartlyUsed) { CheckLayouts(150, 40); }

// Matrices of many lines of memory, which begin with one, are written past the cache.
TEST(Planes, LargePlanesOfManyRowsAWord) {
  const size_t rows = 2048, cols = 1024;
  std::vector<uint8_t> codes(rows * cols), back(rows * cols);
  std::mt19937 random(1);
  for (uint8_t& c : codes) c = uint8_t(random() % 16);
  for (const Plane& p : Layouts()) {
    if (p.bits != 4 || !p.cols_first) continue;
    const size_t bytes = ShapeOf(p, rows, cols).bytes(p);
    Scratch memory;  // aligned
    uint8_t* const data = memory.Get<uint8_t>(bytes);
    PackPlane(p, codes.data(), rows, cols, data);
    UnpackRows(p, data, rows, cols, 0, rows, back.data(), cols);
    EXPECT_EQ(back, codes) << "word " << p.word << " down " << p.down << " lanes " << p.lanes;
  }
}

}  // namespace
}  // namespace edgequant
