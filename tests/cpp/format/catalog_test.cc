#include "format/catalog.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "format/decode.h"

namespace edgequant {
namespace {

TEST(Catalog, NamesAndGgufTypesAreUnique) {
  std::set<std::string> names;
  std::set<int> types;
  for (const CatalogEntry& entry : kCatalog) {
    EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    if (entry.gguf_type >= 0) { EXPECT_TRUE(types.insert(entry.gguf_type).second) << entry.name; }
    FormatId id;
    ASSERT_TRUE(FindFormat(entry.name, &id));
    EXPECT_EQ(&BlockOf(id), entry.block);
    if (entry.gguf_type >= 0) {
      FormatId by_type;
      ASSERT_TRUE(FindGgufType(uint32_t(entry.gguf_type), &by_type));
      EXPECT_EQ(by_type, id);
    }
  }
  FormatId id;
  EXPECT_FALSE(FindFormat("q4", &id));
  EXPECT_FALSE(FindGgufType(4, &id));
  EXPECT_FALSE(FindGgufType(0xffffffff, &id));
}

// Which bits of a block its description reads, and how often.
class Bits {
 public:
  explicit Bits(const Block& b) : reads_(size_t(b.bytes) * 8) {}
  void Mark(int first, int count) {
    for (int k = 0; k < count; ++k) {
      ASSERT_GE(first + k, 0);
      ASSERT_LT(size_t(first + k), reads_.size());
      ++reads_[size_t(first + k)];
    }
  }
  void Mark(const Field& f, int elements) {
    for (int i = 0; i < elements; ++i)
      if (Covers(f, i)) Mark(FirstBit(f, i), f.bits);
  }
  void Mark(const Level& level, int weights) {
    const int numbers = level.group ? weights / level.group : 1;
    if (level.pieces.kind != FieldKind::kNone)
      Mark(level.pieces, SizeOf(level.type) * 8 / level.pieces.bits);
    else
      Mark(level.byte * 8, numbers * SizeOf(level.type) * 8);
    for (const Field& f : level.sub) Mark(f, level.sub_group ? weights / level.sub_group : 0);
  }
  const std::vector<int>& reads() const { return reads_; }

 private:
  std::vector<int> reads_;
};

TEST(Catalog, EveryBitOfABlockMeansOneThing) {
  for (const CatalogEntry& entry : kCatalog) {
    SCOPED_TRACE(entry.name);
    const Block& b = *entry.block;
    Bits bits(b);
    for (const Field& f : b.codes)
      if (f.kind != FieldKind::kTrits) bits.Mark(f, b.n / b.map.dim);
    for (const Field& f : b.codes)  // the digits of a byte share its bits: count the byte once
      if (f.kind == FieldKind::kTrits) bits.Mark(f.start, f.lanes * 8);
    bits.Mark(b.map.signs, b.n / 8);
    if (b.map.shift_sign.lane_step == 0 && b.map.shift_sign.lanes > 1) {  // one bit for several groups of 8
      for (int i = 0; i < b.n / 8; i += b.map.shift_sign.lanes) bits.Mark(FirstBit(b.map.shift_sign, i), 1);
    } else {
      bits.Mark(b.map.shift_sign, b.n / 8);
    }
    bits.Mark(b.scale, b.n);
    bits.Mark(b.offset, b.n);
    for (size_t k = 0; k < bits.reads().size(); ++k)
      EXPECT_EQ(bits.reads()[k], 1) << "byte " << k / 8 << " bit " << k % 8;
  }
}

}  // namespace
}  // namespace edgequant
