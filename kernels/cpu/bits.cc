#include "kernels/cpu/bits.h"

#include <string.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/bits.cc"
#include <hwy/foreach_target.h>  // keep order
#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace edgequant::bits {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr uint64_t kBytes = 0x0101010101010101ull, kPairs = 0x0001000100010001ull, kFours = 0x0000000100000001ull;

// Eight codes of kBits side by side <-> one in each byte, by halves.
template <int kBits>
HWY_INLINE uint64_t Spread(uint64_t x) {
  constexpr uint64_t half = (1ull << 4 * kBits) - 1, two = (1ull << 2 * kBits) - 1, one = (1ull << kBits) - 1;
  if constexpr (kBits == 8) return x;
  x = (x & half) | (x >> 4 * kBits & half) << 32;
  x = (x & two * kFours) | (x & (two << 2 * kBits) * kFours) << (16 - 2 * kBits);
  return (x & one * kPairs) | (x & (one << kBits) * kPairs) << (8 - kBits);
}
template <int kBits>
HWY_INLINE uint64_t Gather(uint64_t x) {
  constexpr uint64_t two = (1ull << 2 * kBits) - 1, one = (1ull << kBits) - 1;
  if constexpr (kBits == 8) return x;
  x = (x & one * kPairs) | (x >> (8 - kBits) & (one << kBits) * kPairs);
  x = (x & two * kFours) | (x >> (16 - 2 * kBits) & (two << 2 * kBits) * kFours);
  return (x & 0xffffffffull) | x >> 32 << 4 * kBits;
}

// The elements of every byte in the opposite order.
template <int kBits>
HWY_INLINE uint64_t Reverse(uint64_t x) {
  if constexpr (kBits == 4) return (x >> 4 & 0x0f * kBytes) | (x & 0x0f * kBytes) << 4;
  if constexpr (kBits == 2) {
    x = (x >> 2 & 0x33 * kBytes) | (x & 0x33 * kBytes) << 2;
    return Reverse<4>(x);
  }
  if constexpr (kBits == 1) {
    x = (x >> 1 & 0x55 * kBytes) | (x & 0x55 * kBytes) << 1;
    return Reverse<2>(x);
  }
  return x;
}

#if HWY_TARGET != HWY_SCALAR
// Whole vectors of 1, 2 or 4 bits: each byte is split in two, and the halves interleaved, until codes are single.
using D16 = hn::CappedTag<uint8_t, 16>;
using V16 = hn::Vec<D16>;
// From fields of kFrom bits (in bytes) down to kBits.
template <int kBits, int kFrom, bool kHighFirst>
HWY_INLINE void Halve(V16 v, V16 offset, uint8_t* HWY_RESTRICT out) {
  const D16 d;
  if constexpr (kFrom == kBits) {
    hn::StoreU(hn::And(hn::Sub(v, offset), hn::Set(d, uint8_t((1 << kBits) - 1))), d, out);
  } else {
    constexpr int half = kFrom / 2;
    const hn::Repartition<uint16_t, D16> d2;
    const auto mask = hn::Set(d, uint8_t((1 << half) - 1));
    const V16 low = hn::And(v, mask), high = hn::And(hn::BitCast(d, hn::ShiftRight<half>(hn::BitCast(d2, v))), mask);
    const V16 first = kHighFirst ? high : low, second = kHighFirst ? low : high;
    Halve<kBits, half, kHighFirst>(hn::InterleaveLower(d, first, second), offset, out);
    Halve<kBits, half, kHighFirst>(hn::InterleaveUpper(d, first, second), offset, out + 16 * half / kBits);
  }
}
#endif

// kBits bytes; put together in a register, since a load would wait for several stores.
template <int kBits>
HWY_INLINE uint64_t LoadBytes(const uint8_t* p) {
  const auto load = [](auto v, const uint8_t* from) HWY_ATTR {
    memcpy(&v, from, sizeof v);
    return uint64_t{v};
  };
  if constexpr (kBits == 8) return load(uint64_t{}, p);
  if constexpr (kBits == 7) return load(uint32_t{}, p) | load(uint32_t{}, p + 3) << 24;
  if constexpr (kBits == 6) return load(uint32_t{}, p) | load(uint16_t{}, p + 4) << 32;
  if constexpr (kBits == 5) return load(uint32_t{}, p) | uint64_t{p[4]} << 32;
  if constexpr (kBits == 4) return load(uint32_t{}, p);
  if constexpr (kBits == 3) return load(uint16_t{}, p) | uint64_t{p[2]} << 16;
  if constexpr (kBits == 2) return load(uint16_t{}, p);
  return *p;
}

template <int kBits, bool kHighFirst>
HWY_INLINE void UnpackWidth(const uint8_t* HWY_RESTRICT src, size_t n, int offset, uint8_t* HWY_RESTRICT out) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kBits == 1 || kBits == 2 || kBits == 4) {
    constexpr size_t step = 16 * 8 / kBits;
    const D16 d;
    const V16 shift = hn::Set(d, uint8_t(offset));
    for (; i + step <= n; i += step, src += 16) Halve<kBits, 8, kHighFirst>(hn::LoadU(d, src), shift, out + i);
  }
#endif
  const uint64_t mask = uint64_t((1 << kBits) - 1) * kBytes, add = uint64_t(-offset & ((1 << kBits) - 1)) * kBytes;
  const auto codes = [&](uint64_t x) HWY_ATTR {
    if constexpr (kHighFirst) x = Reverse<kBits>(x);
    x = Spread<kBits>(x);
    if constexpr (kBits == 8)
      return ((x & 0x7f * kBytes) + (add & 0x7f * kBytes)) ^ ((x ^ add) & 0x80 * kBytes);  // no carries
    return (x + add) & mask;
  };
  for (; i + 8 <= n; i += 8, src += kBits) {
    const uint64_t v = codes(LoadBytes<kBits>(src));
    memcpy(out + i, &v, 8);
  }
  if (i < n) {
    uint64_t x = 0;
    memcpy(&x, src, BytesOfBits(n - i, kBits));
    x = codes(x);
    memcpy(out + i, &x, n - i);
  }
}

#if HWY_TARGET != HWY_SCALAR
// Codes in bytes to codes side by side, vectors at a time: pairs, pairs of pairs ... until they fill whole bytes.
using D8 = hn::CappedTag<uint8_t, 64>;
using V8 = hn::Vec<D8>;

// Fields of kWidth bits in the low part of every T, two of which make one of twice the width in every T of twice the
// size.
template <class T, int kWidth, bool kHighFirst>
HWY_INLINE V8 Pair(V8 v) {
  const D8 d;
  const hn::Repartition<T, D8> dt;
  constexpr int size = int(sizeof(T)) * 4;  // bits of a half
  const auto both = hn::BitCast(dt, v);
  const auto high = hn::ShiftRight<size>(both);  // the second
  const auto low = hn::And(both, hn::Set(dt, T((T{1} << kWidth) - 1)));
  if constexpr (kHighFirst) return hn::BitCast(d, hn::Or(hn::ShiftLeft<kWidth>(low), high));
  return hn::BitCast(d, hn::Or(low, hn::ShiftLeft<kWidth>(high)));
}

// Eight codes of each 64-bit number, in its low bits.
template <int kBits, bool kHighFirst>
HWY_INLINE V8 GatherBits(V8 v) {
  return Pair<uint64_t, 4 * kBits, kHighFirst>(
      Pair<uint32_t, 2 * kBits, kHighFirst>(Pair<uint16_t, kBits, kHighFirst>(v)));
}

// The bytes of 16 that hold codes: some of every few.
struct BytesOfBlock {
  alignas(16) uint8_t of[16];
  constexpr BytesOfBlock(int size, int used) : of() {
    int n = 0;
    for (int k = 0; k < 16; k += size)
      for (int b = 0; b < used; ++b) of[n++] = uint8_t(k + b);
    while (n < 16) of[n++] = 0x80;
  }
};

// Whole vectors of n codes; returns how many.
template <int kBits, bool kHighFirst>
HWY_INLINE size_t PackVectors(const uint8_t* HWY_RESTRICT codes, size_t n, int offset, uint8_t* HWY_RESTRICT out) {
  constexpr size_t lanes = hn::MaxLanes(D8()), blocks = lanes / 16, piece = 2 * kBits;
  constexpr int size = kBits == 2 ? 4 : 8;  // bytes that are put together
  [[maybe_unused]] static constexpr BytesOfBlock kUsed(size, size * kBits / 8);
  const D8 d;
  const V8 used = hn::LoadDup128(d, kUsed.of), shift = hn::Set(d, uint8_t(offset)),
           mask = hn::Set(d, uint8_t((1 << kBits) - 1));
  size_t i = 0;
  constexpr size_t beyond =
      kBits == 4 || kBits == 8 ? 0 : ((16 - piece) * 8 + kBits - 1) / kBits;  // 16 bytes are written of each piece
  for (; i + lanes + beyond <= n; i += lanes, out += blocks * piece) {
    V8 v = hn::LoadU(d, codes + i);
    if (offset) v = hn::And(hn::Add(v, shift), mask);
    if constexpr (kBits == 8) {
      hn::StoreU(v, d, out);
    } else if constexpr (kBits == 4) {
      const hn::Repartition<int16_t, D8> dw;
      const hn::Rebind<uint8_t, decltype(dw)> dh;
      const auto two = hn::BitCast(dw, v);
      const auto low = kHighFirst ? hn::ShiftRight<8>(two) : two;
      const auto high = kHighFirst ? hn::ShiftLeft<4>(two) : hn::ShiftRight<4>(two);
      hn::StoreU(hn::DemoteTo(dh, hn::And(hn::Or(low, high), hn::Set(dw, 255))), dh, out);
    } else {
      if constexpr (kBits == 2) v = Pair<uint32_t, 4, kHighFirst>(Pair<uint16_t, 2, kHighFirst>(v));
      else v = GatherBits<kBits, kHighFirst>(v);
      v = hn::TableLookupBytes(v, used);
      alignas(64) uint8_t bytes[64];
      hn::Store(v, d, bytes);
      for (size_t b = 0; b < blocks; ++b) memcpy(out + b * piece, bytes + b * 16, 16);
    }
  }
  return i;
}
#endif

template <int kBits, bool kHighFirst>
void PackWidth(const uint8_t* HWY_RESTRICT codes, size_t n, int offset, uint8_t* HWY_RESTRICT out) {
  const uint64_t mask = uint64_t((1 << kBits) - 1) * kBytes, add = uint64_t(offset & ((1 << kBits) - 1)) * kBytes;
  const auto bits_of = [&](uint64_t x) HWY_ATTR {
    if constexpr (kBits == 8) x = ((x & 0x7f * kBytes) + (add & 0x7f * kBytes)) ^ ((x ^ add) & 0x80 * kBytes);
    else x = (x + add) & mask;
    return x;
  };
  const auto packed = [](uint64_t x) HWY_ATTR {
    x = Gather<kBits>(x);
    if constexpr (kHighFirst) x = Reverse<kBits>(x);
    return x;
  };
  uint64_t x = 0;
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  i = PackVectors<kBits, kHighFirst>(codes, n, offset, out);
  out += i / 8 * kBits;
#endif
  for (; i + 8 <= n; i += 8, out += kBits) {
    memcpy(&x, codes + i, 8);
    x = packed(bits_of(x));
    memcpy(out, &x, kBits);
  }
  if (i < n) {
    x = 0;
    memcpy(&x, codes + i, n - i);
    x = packed(bits_of(x) & ((1ull << 8 * (n - i)) - 1));
    memcpy(out, &x, BytesOfBits(n - i, kBits));
  }
}

template <int kBits, bool kHighFirst = false>
HWY_NOINLINE void UnpackPieces(const uint8_t* src, size_t step, size_t blocks, size_t n, int offset, uint8_t* out) {
  constexpr size_t kAtOnce = 16, kJoined = 512;
  const size_t bytes = n * kBits / 8;
  if (n * kBits % 8 == 0 && bytes <= kAtOnce) {  // short ones are put together first
    uint8_t joined[kJoined + kAtOnce];
    for (size_t some; blocks > 0; blocks -= some, out += some * n) {
      some = HWY_MIN(blocks, kJoined / bytes);
      for (size_t i = 0; i < some; ++i, src += step)
        memcpy(joined + i * bytes, src, (blocks - i - 1) * step + bytes >= kAtOnce ? kAtOnce : bytes);
      UnpackWidth<kBits, kHighFirst>(joined, some * n, offset, out);
    }
    return;
  }
  for (size_t b = 0; b < blocks; ++b, src += step, out += n) UnpackWidth<kBits, kHighFirst>(src, n, offset, out);
}

void Unpack(const uint8_t* src, size_t step, size_t blocks, size_t n, int bits, bool high_first, int offset,
            uint8_t* out) {
  switch (high_first ? -bits : bits) {
    case 1: return UnpackPieces<1>(src, step, blocks, n, offset, out);
    case 2: return UnpackPieces<2>(src, step, blocks, n, offset, out);
    case 3: return UnpackPieces<3>(src, step, blocks, n, offset, out);
    case 4: return UnpackPieces<4>(src, step, blocks, n, offset, out);
    case 5: return UnpackPieces<5>(src, step, blocks, n, offset, out);
    case 6: return UnpackPieces<6>(src, step, blocks, n, offset, out);
    case 7: return UnpackPieces<7>(src, step, blocks, n, offset, out);
    case 8: case -8: return UnpackPieces<8>(src, step, blocks, n, offset, out);
    case -1: return UnpackPieces<1, true>(src, step, blocks, n, offset, out);
    case -2: return UnpackPieces<2, true>(src, step, blocks, n, offset, out);
    case -4: return UnpackPieces<4, true>(src, step, blocks, n, offset, out);
    default: return;
  }
}
void Pack(const uint8_t* codes, size_t n, int bits, bool high_first, int offset, uint8_t* out) {
  switch (high_first ? -bits : bits) {
    case 1: return PackWidth<1, false>(codes, n, offset, out);
    case 2: return PackWidth<2, false>(codes, n, offset, out);
    case 3: return PackWidth<3, false>(codes, n, offset, out);
    case 4: return PackWidth<4, false>(codes, n, offset, out);
    case 5: return PackWidth<5, false>(codes, n, offset, out);
    case 6: return PackWidth<6, false>(codes, n, offset, out);
    case 7: return PackWidth<7, false>(codes, n, offset, out);
    case 8: case -8: return PackWidth<8, false>(codes, n, offset, out);
    case -1: return PackWidth<1, true>(codes, n, offset, out);
    case -2: return PackWidth<2, true>(codes, n, offset, out);
    case -4: return PackWidth<4, true>(codes, n, offset, out);
    default: return;
  }
}

constexpr size_t kColumnsAhead = 16, kLine = 64, kMuchMemory = 1 << 16;

// A square of elements, as many as a vector of 16 bytes holds: rows are paired with those half the square further down,
// as often as that takes to bring columns together.
template <class T>
HWY_INLINE void TransposeSquare(const uint8_t* HWY_RESTRICT from, size_t from_step, uint8_t* HWY_RESTRICT to,
                                size_t to_step) {
  constexpr size_t n = 16 / sizeof(T);
#if HWY_TARGET == HWY_SCALAR
  for (size_t i = 0; i < n; ++i)
    for (size_t k = 0; k < n; ++k)
      memcpy(to + k * to_step + i * sizeof(T), from + i * from_step + k * sizeof(T), sizeof(T));
#else
  const D16 d8;
  const hn::Repartition<T, D16> d;
  hn::Vec<decltype(d)> a[n], b[n];
  for (size_t i = 0; i < n; ++i) a[i] = hn::BitCast(d, hn::LoadU(d8, from + i * from_step));
  for (size_t turn = n; turn > 1; turn /= 2) {
    for (size_t i = 0; i < n / 2; ++i)
      b[2 * i] = hn::InterleaveLower(d, a[i], a[i + n / 2]), b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + n / 2]);
    for (size_t i = 0; i < n; ++i) a[i] = b[i];
  }
  for (size_t i = 0; i < n; ++i) hn::StoreU(hn::BitCast(d8, a[i]), d8, to + i * to_step);
#endif
}

// A column is soon to be read, or written.
template <bool kWrite>
HWY_INLINE void FetchColumn(const uint8_t* column, size_t bytes) {
  for (size_t at = 0; at < bytes + kLine - 1; at += kLine)
    __builtin_prefetch(column + HWY_MIN(at, bytes - 1), kWrite, 3);
}

// Whole lines of the cache may go to memory past it, so that they need not be read first.
HWY_INLINE void WriteColumn(const uint8_t* HWY_RESTRICT from, size_t bytes, [[maybe_unused]] bool past,
                            uint8_t* HWY_RESTRICT to) {
#if HWY_TARGET != HWY_SCALAR
  const D8 d;
  for (size_t i = 0; past && i < bytes; i += hn::Lanes(d)) hn::Stream(hn::Load(d, from + i), d, to + i);
  if (past) return;
#endif
  memcpy(to, from, bytes);
}

// Columns lie far from each other, or one behind the other: a few at a time are put together, or taken apart, nearby.
template <class T, bool kToColumns, class Lines, class Columns>
void MoveColumns(Lines* lines, size_t line_step, size_t count, size_t n, Columns* columns, size_t column_step) {
  constexpr size_t square = 16 / sizeof(T), most = kMostLines * sizeof(T);
  alignas(64) uint8_t near[square * most];
  const size_t bytes = count * sizeof(T);
  const bool joined = column_step == bytes && count % square == 0 && square * bytes % kLine == 0 && n % square == 0;
  const size_t step = joined ? bytes : most, piece = joined ? square * bytes : bytes;
  const bool past = kToColumns && n * column_step >= kMuchMemory &&
                    (reinterpret_cast<uintptr_t>(columns) | (joined ? 0 : column_step) | piece) % kLine == 0;
  const auto fetch = [&](size_t c) HWY_ATTR {
    if (c < n && !past) FetchColumn<kToColumns>(columns + c * column_step, bytes);
  };
  for (size_t c = 0; c < kColumnsAhead; ++c) fetch(c);
  for (size_t c = 0; c < n; c += square) {
    const size_t some = HWY_MIN(square, n - c);
    for (size_t i = 0; i < square; ++i) fetch(c + kColumnsAhead + i);
    Lines* const at = lines + c * sizeof(T);
    if constexpr (kToColumns) {
      for (size_t k = 0; k < count; k += square)
        TransposeSquare<T>(at + k * line_step, line_step, near + k * sizeof(T), step);
      for (size_t i = 0; i < (joined ? 1 : some); ++i)
        WriteColumn(near + i * step, piece, past, columns + (c + i) * column_step);
    } else {
      for (size_t i = 0; i < (joined ? 1 : some); ++i)
        memcpy(near + i * step, columns + (c + i) * column_step, piece);
      for (size_t k = 0; k < count; k += square)
        TransposeSquare<T>(near + k * sizeof(T), step, at + k * line_step, line_step);
    }
  }
  if (past) hwy::FlushStream();
}

template <bool kToColumns, class Lines, class Columns>
HWY_INLINE void MoveColumnsOf(int bytes, Lines* lines, size_t step, size_t count, size_t n, Columns* columns,
                              size_t column_step) {
  if (bytes == 1) MoveColumns<uint8_t, kToColumns>(lines, step, count, n, columns, column_step);
  else if (bytes == 2) MoveColumns<uint16_t, kToColumns>(lines, step, count, n, columns, column_step);
  else MoveColumns<uint32_t, kToColumns>(lines, step, count, n, columns, column_step);
}
void ToColumns(int bytes, const uint8_t* lines, size_t step, size_t count, size_t n, uint8_t* columns,
               size_t column_step) {
  MoveColumnsOf<true>(bytes, lines, step, count, n, columns, column_step);
}
void FromColumns(int bytes, const uint8_t* columns, size_t column_step, size_t count, size_t n, uint8_t* lines,
                 size_t step) {
  MoveColumnsOf<false>(bytes, lines, step, count, n, columns, column_step);
}

#if HWY_TARGET != HWY_SCALAR
template <class D>
HWY_INLINE void PutVector(D d, const uint8_t* HWY_RESTRICT codes, int bits, int bit, int offset, bool add,
                          uint8_t* HWY_RESTRICT out) {
  const hn::Repartition<uint16_t, D> d2;
  const auto ones = hn::Set(d, uint8_t((1 << bits) - 1));
  const auto code = hn::And(hn::Add(hn::LoadU(d, codes), hn::Set(d, uint8_t(offset))), ones);
  const auto there = hn::BitCast(d, hn::ShiftLeftSame(hn::BitCast(d2, code), bit));
  hn::StoreU(add ? hn::Or(hn::LoadU(d, out), there) : there, d, out);
}
#endif
void Put(const uint8_t* HWY_RESTRICT codes, size_t n, size_t runs, size_t step, int bits, int bit, int offset,
         bool add, uint8_t* HWY_RESTRICT out) {
  const int mask = (1 << bits) - 1;
  for (; runs > 0; --runs, codes += step, out += n) {
    size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; i + hn::Lanes(D8()) <= n; i += hn::Lanes(D8())) PutVector(D8(), codes + i, bits, bit, offset, add, out + i);
    for (; i + 16 <= n; i += 16) PutVector(D16(), codes + i, bits, bit, offset, add, out + i);
#endif
    for (; i < n; ++i) out[i] = uint8_t((add ? out[i] : 0) | ((codes[i] + offset) & mask) << bit);
  }
}
#if HWY_TARGET != HWY_SCALAR
template <class D>
HWY_INLINE void TakeVector(D d, const uint8_t* HWY_RESTRICT bytes, int bits, int bit, int offset,
                           uint8_t* HWY_RESTRICT out) {
  const hn::Repartition<uint16_t, D> d2;  // bits of the neighbour are masked
  const auto low = hn::BitCast(d, hn::ShiftRightSame(hn::BitCast(d2, hn::LoadU(d, bytes)), bit));
  hn::StoreU(hn::And(hn::Sub(low, hn::Set(d, uint8_t(offset))), hn::Set(d, uint8_t((1 << bits) - 1))), d, out);
}
#endif
void Take(const uint8_t* HWY_RESTRICT bytes, size_t n, size_t runs, size_t step, int bits, int bit, int offset,
          uint8_t* HWY_RESTRICT out) {
  const int mask = (1 << bits) - 1;
  for (; runs > 0; --runs, bytes += n, out += step) {
    size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; i + hn::Lanes(D8()) <= n; i += hn::Lanes(D8())) TakeVector(D8(), bytes + i, bits, bit, offset, out + i);
    for (; i + 16 <= n; i += 16) TakeVector(D16(), bytes + i, bits, bit, offset, out + i);
#endif
    for (; i < n; ++i) out[i] = uint8_t(((bytes[i] >> bit) - offset) & mask);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::bits
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgequant {
namespace bits {

HWY_EXPORT(Unpack);
HWY_EXPORT(Pack);
HWY_EXPORT(ToColumns);
HWY_EXPORT(FromColumns);
HWY_EXPORT(Put);
HWY_EXPORT(Take);

}  // namespace bits

void UnpackBits(const uint8_t* src, size_t n, int bits, bool high_first, int offset, uint8_t* out) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(Unpack)(src, 0, 1, n, bits, high_first, offset, out);
}
void UnpackBlocks(const uint8_t* src, size_t step, size_t blocks, size_t n, int bits, bool high_first, int offset,
                  uint8_t* out) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(Unpack)(src, step, blocks, n, bits, high_first, offset, out);
}
void PackBits(const uint8_t* codes, size_t n, int bits, bool high_first, int offset, uint8_t* out) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(Pack)(codes, n, bits, high_first, offset, out);
}

void LinesToColumns(int bytes, const uint8_t* lines, size_t step, size_t count, size_t n, uint8_t* columns,
                    size_t column_step) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(ToColumns)(bytes, lines, step, count, n, columns, column_step);
}
void ColumnsToLines(int bytes, const uint8_t* columns, size_t column_step, size_t count, size_t n, uint8_t* lines,
                    size_t step) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(FromColumns)(bytes, columns, column_step, count, n, lines, step);
}
void PutSlot(const uint8_t* codes, size_t n, size_t runs, size_t step, int width, int bit, int offset, bool add,
             uint8_t* out) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(Put)(codes, n, runs, step, width, bit, offset, add, out);
}
void TakeSlot(const uint8_t* bytes, size_t n, size_t runs, size_t step, int width, int bit, int offset, uint8_t* out) {
  using namespace bits;
  HWY_DYNAMIC_DISPATCH(Take)(bytes, n, runs, step, width, bit, offset, out);
}

namespace {

// The five digits of every byte, one in each of the low bytes.
struct DigitTable {
  uint64_t of[256];
  constexpr DigitTable() : of() {
    for (int byte = 0; byte < 256; ++byte)
      for (int k = 0, power = 1; k < 5; ++k, power *= 3) of[byte] |= uint64_t((byte * power & 255) * 3 >> 8) << (8 * k);
  }
};
constexpr DigitTable kDigits;

}  // namespace

void UnpackTrits(const uint8_t* src, size_t n, uint8_t* out) {
  size_t i = 0;
  for (; i + 8 <= n; i += 5) memcpy(out + i, &kDigits.of[*src++], 8);  // three bytes too many, which are written again
  for (; i < n; i += 5) memcpy(out + i, &kDigits.of[*src++], n - i < 5 ? n - i : 5);
}
void PackTrits(const uint8_t* codes, size_t n, uint8_t* out) {
  for (size_t i = 0; i < n; i += 5, ++out) {
    int v = 0;
    for (size_t k = 0; k < 5; ++k) v = v * 3 + (i + k < n ? codes[i + k] : 0);
    *out = uint8_t((v * 256 + 242) / 243);
  }
}

}  // namespace edgequant
#endif
