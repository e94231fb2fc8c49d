// panel_lines-inl.h in plain C++, for targets without fixed vectors: Highway 1.0.3's x86-64 baseline with g++ has
// one-lane vectors without shuffles, SVE's and RVV's have no size when this is compiled. Included by panel_lines-inl.h
// only, hence no guard. Not inlined: unrolled kernels of plain loops would take minutes to compile.
#include <string.h>

#include "format/decode.h"

HWY_BEFORE_NAMESPACE();
namespace edgequant::panel {
namespace HWY_NAMESPACE {

constexpr int kParts = 16;
constexpr bool kUnsignedDot = false;

struct Line { uint8_t v[64]; };
struct Ints { int32_t v[16]; };
struct Floats { float v[16]; };
struct Table16 { uint8_t v[16]; };
struct Quad { int8_t v[4]; };

template <class R, int n, class F>
HWY_INLINE R Each(const F& f) {
  R r;
  for (int i = 0; i < n; ++i) r.v[i] = f(i);
  return r;
}

inline HWY_NOINLINE Line LoadLine(const void* p) { Line v; memcpy(v.v, p, 64); return v; }
inline HWY_NOINLINE void StoreLine(const Line& v, int8_t* p) { memcpy(p, v.v, 64); }
template <int by>
inline HWY_NOINLINE Line Down(const Line& v) {
  return Each<Line, 64>([&](int i) { return uint8_t(v.v[i] >> by); });
}
template <int width, int from, int to>
inline HWY_NOINLINE Line BitsOf(const Line& v) {
  return Each<Line, 64>([&](int i) { return uint8_t((v.v[i] >> from & ((1 << width) - 1)) << to); });
}
template <int width, int from, int to>
inline HWY_NOINLINE Line WithBitsOf(const Line& with, const Line& v) {
  return Each<Line, 64>([&](int i) { return uint8_t(with.v[i] | (v.v[i] >> from & ((1 << width) - 1)) << to); });
}
inline HWY_NOINLINE Line Minus(const Line& v, int zero) {
  return Each<Line, 64>([&](int i) { return uint8_t(v.v[i] - zero); });
}
inline HWY_NOINLINE Line Twice(const Line& v) {
  return Each<Line, 64>([&](int i) { return uint8_t(2 * v.v[i]); });
}
template <int kFirst>
inline HWY_NOINLINE Line TwicePairs(const Line& v) {
  return Each<Line, 64>([&](int i) { return v.v[i / 4 * 4 + kFirst + i % 4 / 2]; });
}
inline HWY_NOINLINE Line FlipTops(const Line& v) {
  return Each<Line, 64>([&](int i) { return uint8_t(v.v[i] ^ 128); });
}
inline HWY_NOINLINE Table16 LoadTable(const int8_t* values) { Table16 t; memcpy(t.v, values, 16); return t; }
inline HWY_NOINLINE Table16 FlipTops(const Table16& t) {
  return Each<Table16, 16>([&](int i) { return uint8_t(t.v[i] ^ 128); });
}
inline HWY_NOINLINE Line LookUp(const Table16& t, const Line& codes) {
  return Each<Line, 64>([&](int i) { return t.v[codes.v[i]]; });
}

inline HWY_NOINLINE Quad LoadQuad(const void* p) { Quad q; memcpy(q.v, p, 4); return q; }
template <bool kSmall, DotUnit kDot = DotUnit::kNone>
inline HWY_NOINLINE Ints DotCodes(const Ints& sum, const Line& codes, const Quad& x) {
  return Each<Ints, 16>([&](int i) {
    int32_t s = sum.v[i];
    for (int j = 0; j < 4; ++j) s += int8_t(codes.v[4 * i + j]) * x.v[j];
    return s;
  });
}

inline HWY_NOINLINE Ints SetInts(int32_t v) { return Each<Ints, 16>([&](int) { return v; }); }
inline HWY_NOINLINE Ints LoadInts(const int32_t* p) { return Each<Ints, 16>([&](int i) { return p[i]; }); }
inline HWY_NOINLINE void StoreInts(const Ints& v, int32_t* p) { memcpy(p, v.v, 64); }
inline HWY_NOINLINE Ints JoinPairs(const Ints& low, const Ints& high) {
  return Each<Ints, 16>([&](int i) { return int32_t((uint32_t(low.v[i]) & 0xffff) | uint32_t(high.v[i]) << 16); });
}
inline HWY_NOINLINE Ints DotPairs(const Ints& sum, const Ints& pairs, int32_t pair) {
  return Each<Ints, 16>([&](int i) {
    return sum.v[i] + int16_t(pairs.v[i]) * int16_t(pair) + (pairs.v[i] >> 16) * (pair >> 16);
  });
}
inline HWY_NOINLINE Line TimesBytes(const Line& v, const Ints& pairs) {
  return Each<Line, 64>([&](int i) { return uint8_t(v.v[i] * pairs.v[i / 4]); });
}
inline HWY_NOINLINE Ints TimesPlus(const Ints& a, const Ints& b, const Ints& c) {
  return Each<Ints, 16>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline HWY_NOINLINE Ints Plus(const Ints& a, const Ints& b) {
  return Each<Ints, 16>([&](int i) { return a.v[i] + b.v[i]; });
}
inline HWY_NOINLINE Ints Magnitude(const Ints& v) {
  return Each<Ints, 16>([&](int i) { return v.v[i] < 0 ? -v.v[i] : v.v[i]; });
}
inline HWY_NOINLINE void Keep(Ints&) {}
inline HWY_NOINLINE void Keep(Line&) {}

inline HWY_NOINLINE Floats ZeroFloats() { return Each<Floats, 16>([](int) { return 0.0f; }); }
inline HWY_NOINLINE Floats LoadFloats(const float* p) { return Each<Floats, 16>([&](int i) { return p[i]; }); }
inline HWY_NOINLINE void StoreFloats(const Floats& v, float* p) { memcpy(p, v.v, 64); }
inline HWY_NOINLINE Floats ToFloats(const Ints& v) { return Each<Floats, 16>([&](int i) { return float(v.v[i]); }); }
inline HWY_NOINLINE Floats Times(const Floats& a, const Floats& b) {
  return Each<Floats, 16>([&](int i) { return a.v[i] * b.v[i]; });
}
inline HWY_NOINLINE Floats Times(const Floats& a, float b) {
  return Each<Floats, 16>([&](int i) { return a.v[i] * b; });
}
inline HWY_NOINLINE Floats TimesPlus(const Floats& a, const Floats& b, const Floats& c) {
  return Each<Floats, 16>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline HWY_NOINLINE Floats TimesPlus(const Floats& a, float b, const Floats& c) {
  return Each<Floats, 16>([&](int i) { return a.v[i] * b + c.v[i]; });
}

inline HWY_NOINLINE Floats FromF16(const uint8_t* p) {
  return Each<Floats, 16>([&](int i) { return ReadNumber(Number::kF16, p + 2 * i); });
}
inline HWY_NOINLINE Floats FromBF16(const uint8_t* p) {
  return Each<Floats, 16>([&](int i) { return ReadNumber(Number::kBF16, p + 2 * i); });
}
inline HWY_NOINLINE Floats FromF32(const uint8_t* p) {
  return Each<Floats, 16>([&](int i) { return ReadNumber(Number::kF32, p + 4 * i); });
}
inline HWY_NOINLINE Ints LoadSignedBytes(const uint8_t* p) {
  return Each<Ints, 16>([&](int i) { return int32_t(int8_t(p[i])); });
}
inline HWY_NOINLINE Ints LoadBytes(const uint8_t* p) { return Each<Ints, 16>([&](int i) { return int32_t(p[i]); }); }
inline HWY_NOINLINE Ints LowNibble(const Ints& v) { return Each<Ints, 16>([&](int i) { return v.v[i] & 15; }); }
inline HWY_NOINLINE Ints HighNibble(const Ints& v) { return Each<Ints, 16>([&](int i) { return v.v[i] >> 4; }); }
inline HWY_NOINLINE Floats FromE8M0(const uint8_t* p) {
  return Each<Floats, 16>([&](int i) { return ReadNumber(Number::kE8M0Half, p + i); });
}
inline HWY_NOINLINE Floats FromUE4M3(const uint8_t* p) {
  return Each<Floats, 16>([&](int i) { return F16ToF32(uint16_t(p[i] << 7)); });
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
HWY_AFTER_NAMESPACE();
