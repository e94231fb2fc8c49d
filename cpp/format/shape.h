// What an encoder needs to know of a block, derived from its description: how the weights group under one scale, which
// values a code can take, and which integers a sub-scale can take.
#pragma once
#include "format/block.h"

namespace edgequant {

struct Shape {
  int group = 0;           // weights that share one scale (and one minimum): the unit of a search
  int groups = 0;          // of them in a block
  bool affine = false;     // a minimum or offset beside the scale
  bool two_level = false;  // scales are integers times one number per block
  int codes = 0;           // different codes
  float low = 0, high = 0; // the least and the largest value a code stands for
  int scale_low = 0, scale_high = 0;  // integers that a sub-scale stands for
  int min_high = 0;                   // the same for the minimum, which starts at 0
};

constexpr int BitsOf(const Field (&fields)[3]) {
  int bits = 0;
  for (const Field& f : fields)
    if (f.kind == FieldKind::kBits) bits += f.bits;
  return bits;
}
constexpr int CodesOf(const Block& b) { return b.map.codes ? b.map.codes : 1 << BitsOf(b.codes); }

// The value of a stored code (a code with its sign undone is its own value).
constexpr float ValueOf(const Block& b, int code) {
  if (b.map.kind == MapKind::kTable) return b.map.values[code];
  if (b.codes[0].is_signed && code >= CodesOf(b) / 2) code -= CodesOf(b);
  return float(code - b.map.zero);
}

constexpr int SubBits(const Level& level) {
  return level.sub[0].bits + (level.sub[1].kind == FieldKind::kBits ? level.sub[1].bits : 0);
}
constexpr int SubLow(const Level& level) {
  return (level.sub[0].is_signed ? -(1 << (SubBits(level) - 1)) : 0) - int(level.sub_zero);
}
constexpr int SubHigh(const Level& level) { return SubLow(level) + (1 << SubBits(level)) - 1; }

constexpr Shape ShapeOf(const Block& b) {
  Shape s;
  s.group = b.scale.sub_group ? b.scale.sub_group : b.scale.group ? b.scale.group : b.n;
  s.groups = b.n / s.group;
  s.affine = b.offset.type != Number::kNone;
  s.two_level = b.scale.sub_group != 0;
  s.codes = CodesOf(b);
  s.low = s.high = ValueOf(b, 0);
  for (int c = 1; c < s.codes; ++c) {
    const float v = ValueOf(b, c);
    if (v < s.low) s.low = v;
    if (v > s.high) s.high = v;
  }
  if (s.two_level) {
    s.scale_low = SubLow(b.scale);
    s.scale_high = SubHigh(b.scale);
    if (s.affine) s.min_high = SubHigh(b.offset);
  }
  return s;
}

}  // namespace edgequant
