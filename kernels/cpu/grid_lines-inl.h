// Reading compact panels of grids (format/grid_panel.h): from numbers of rows to values.
#if defined(EDGEQUANT_GRID_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGEQUANT_GRID_LINES_INL_H_
#undef EDGEQUANT_GRID_LINES_INL_H_
#else
#define EDGEQUANT_GRID_LINES_INL_H_
#endif

#include "format/grid_panel.h"
#include "kernels/cpu/panel_codes-inl.h"

HWY_BEFORE_NAMESPACE();
EDGEQUANT_BEFORE_VNNI
namespace edgequant::panel {
namespace HWY_NAMESPACE {

// What the codes are, at compile time.
template <int kWeights, int kBits, bool kHasSigns, GridShift kShiftOf, int kPerScale>
struct GridCodes {
  static constexpr int kDim = kWeights, kCodeBits = kBits, kGroup = kPerScale;
  static constexpr bool kSigns = kHasSigns, kShifts = kShiftOf == GridShift::kCode;
  static constexpr GridShift kShift = kShiftOf;
  static constexpr GridPanel kPanel = [] {
    GridPanel p;
    p.dim = kWeights, p.code_bits = kBits, p.signs = kHasSigns, p.shift = kShiftOf;
    return p;
  }();
  static constexpr int kCodeLines = kPanel.code_lines(), kLines = kPanel.lines();
  static constexpr int kScaleLines = kPanel.scale_lines(kGroup);
  static constexpr int kSignLine = kCodeLines + kPanel.high_lines(), kShiftLine = kSignLine + kPanel.sign_lines();
};
constexpr int kHalf = 16, kHalves = kGridBlock / kHalf, kHalfSteps = kHalf / 4;  // k of a row that steps are ordered in

constexpr int kUnits = kGridBlock / kPanelUnit;

// The rows of the codes of 32 k, as bytes of level numbers. 8 weights per code: a line for each half, of bytes of
// weights 0-3 and 4-7 of one code, then of the next; 4: two for each half, of weights 0 and 1 and of 2 and 3 of all
// codes.
template <class G>
struct UnitRows {
  static constexpr int kCodeLines = 8 / G::kDim, kLines = 2 * kCodeLines, kBytes = kLines * kPanelLine;
  Regs<Line, kLines> line;
  HWY_INLINE void Load(const uint8_t* p) {
    For<kLines>([&](auto i) EDGEQUANT_UNROLLED { line.template At<i>() = LoadLine(p + i * kPanelLine); });
  }
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
constexpr bool kGridPermutes = true;

// Bytes of kCount registers of a table, by the lower bits of `code`; mask k has bit 7 + k of all codes.
template <int kFirst, int kCount, int kTables>
HWY_INLINE __m512i PickBytes(const Regs<V8, kTables>& table, __m512i code, const __mmask64* mask) {
  if constexpr (kCount == 2) {
    return _mm512_permutex2var_epi8(table.template At<kFirst>().raw, code, table.template At<kFirst + 1>().raw);
  } else {
    constexpr int top = kCount == 4 ? 0 : kCount == 8 ? 1 : 2;
    return _mm512_mask_blend_epi8(mask[top], PickBytes<kFirst, kCount / 2>(table, code, mask),
                                  PickBytes<kFirst + kCount / 2, kCount / 2>(table, code, mask));
  }
}

// Mask k has bit 7 + k of the codes of line j.
alignas(64) inline constexpr auto kBitOfLine = [] {
  struct { uint8_t at[8][64]; } bits{};
  for (int j = 0; j < 8; ++j)
    for (uint8_t& b : bits.at[j]) b = uint8_t(1 << j);
  return bits;
}();
template <class G>
HWY_INLINE void ReadMasks(const uint8_t* HWY_RESTRICT block, int j, __m512i code, __mmask64* mask) {
  mask[0] = _mm512_movepi8_mask(code);
  if constexpr (G::kCodeBits == 8) return;
  const uint8_t* const high = block + (G::kCodeLines + j / 8) * kPanelLine;
  const __m512i bit = _mm512_load_si512(kBitOfLine.at[j % 8]);
  for (int k = 1; k <= G::kCodeBits - 8; ++k)
    mask[k] = _mm512_test_epi8_mask(bit, _mm512_load_si512(high + (k - 1) * G::kCodeLines / 8 * kPanelLine));
}
template <int kFirst, int kCount, int kTables>
HWY_INLINE void LoadPlane(const uint8_t* plane, Regs<V8, kTables>& table) {
  For<kCount>([&](auto i) EDGEQUANT_UNROLLED {
    V8 v = hn::Load(D8(), plane + i * 64);
    EDGEQUANT_PIN(v);
    table.template At<kFirst + i>() = v;
  });
}
// Where the bytes of both halves of 32 k come from: those of a code's two planes follow each other.
alignas(64) inline constexpr auto kPairs = [] {
  struct { uint8_t at[2][64]; } p{};
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 64; ++i) p.at[half][i] = uint8_t(i / 4 * 4 + 2 * half + i % 4 / 2 + i % 2 * 64);
  return p;
}();

HWY_INLINE __m512i Paired(__m512i low, __m512i high, int half) {
  return _mm512_permutex2var_epi8(low, _mm512_load_si512(kPairs.at[half]), high);
}

// Hands out the rows of a block, 32 k at a time. Where both planes of the grid leave registers free, rows are looked up
// then;
constexpr int kMostTables = 16;
template <class G, bool kAtOnce = G::kCodeBits == 8>
class RowReader {
 public:
  explicit HWY_INLINE RowReader(const GridPanel& grid) {
    LoadPlane<0, kTables>(grid.planes[0], table_);
    LoadPlane<kTables, kTables>(grid.planes[1], table_);
  }
  HWY_INLINE void Start(const uint8_t* block) { block_ = block; }
  HWY_INLINE void Read(int unit, UnitRows<G>& rows) {
    For<UnitRows<G>::kCodeLines>([&](auto i) EDGEQUANT_UNROLLED {
      const int j = UnitRows<G>::kCodeLines * unit + i;
      const __m512i code = _mm512_load_si512(block_ + j * kPanelLine);
      __mmask64 mask[4];
      ReadMasks<G>(block_, j, code, mask);
      const __m512i low = PickBytes<0, kTables>(table_, code, mask);
      const __m512i high = PickBytes<kTables, kTables>(table_, code, mask);
      rows.line.template At<2 * i>().head = V8{G::kDim == 8 ? Paired(low, high, 0) : low};
      rows.line.template At<2 * i + 1>().head = V8{G::kDim == 8 ? Paired(low, high, 1) : high};
    });
  }

 private:
  static constexpr int kTables = 1 << (G::kCodeBits - 6);
  Regs<V8, 2 * kTables> table_;
  const uint8_t* block_;
};

// else for a whole block before, as much of a plane at a time as fits.
template <class G>
class RowReader<G, false> {
 public:
  explicit HWY_INLINE RowReader(const GridPanel& grid) : grid_(grid) {}
  HWY_INLINE void Start(const uint8_t* HWY_RESTRICT block) {
    constexpr int kAll = 1 << (G::kCodeBits - 6), kTables = HWY_MIN(kMostTables, kAll), kTurns = kAll / kTables;
    constexpr int kPlanes = HWY_MIN(2, kMostTables / kTables);  // at a time
    For<2 / kPlanes * kTurns>([&](auto pass) EDGEQUANT_UNROLLED {
      constexpr int plane = decltype(pass)::value / kTurns, turn = decltype(pass)::value % kTurns;
      Regs<V8, kPlanes * kTables> table;
      For<kPlanes>([&](auto p) EDGEQUANT_UNROLLED {
        LoadPlane<p * kTables, kTables>(grid_.planes[plane + p] + turn * kTables * 64, table);
      });
      for (int j = 0; j < G::kCodeLines; ++j) {
        const __m512i code = _mm512_load_si512(block + j * kPanelLine);
        __mmask64 mask[4];
        ReadMasks<G>(block, j, code, mask);
        uint8_t* const to = rows_ + 2 * j * kPanelLine;  // low and high, or both halves of 32 k
        __m512i v[2];
        For<kPlanes>([&](auto p) EDGEQUANT_UNROLLED {
          constexpr int at = plane + decltype(p)::value;
          v[at] = PickBytes<p * kTables, kTables>(table, code, mask);
          if constexpr (turn != 0)
            v[at] = _mm512_mask_blend_epi8(mask[3], _mm512_load_si512(to + at * kPanelLine), v[at]);
        });
        if constexpr (plane + kPlanes == 2 && turn == kTurns - 1 && G::kDim == 8) {
          if constexpr (kPlanes == 1) v[0] = _mm512_load_si512(to);
          for (int half = 0; half < 2; ++half) _mm512_store_si512(to + half * kPanelLine, Paired(v[0], v[1], half));
        } else {
          For<kPlanes>([&](auto p) EDGEQUANT_UNROLLED {
            _mm512_store_si512(to + (plane + p) * kPanelLine, v[plane + p]);
          });
        }
      }
    });
  }
  HWY_INLINE void Read(int unit, UnitRows<G>& rows) { rows.Load(rows_ + unit * UnitRows<G>::kBytes); }

 private:
  const GridPanel& grid_;
  alignas(64) uint8_t rows_[kUnits * UnitRows<G>::kBytes];
};

// Tables of values by indices of 6 or 7 bits.
template <class G>
struct GridValues {
  static constexpr int kTables = G::kDim == 4 ? 1 : 4, kEach = G::kShifts ? 2 : 1;
  Regs<V8, kTables * kEach> table;
};
template <class G>
HWY_INLINE GridValues<G> LoadValues(G, const GridPanel& grid, bool flip_tops) {
  GridValues<G> values;
  For<GridValues<G>::kTables * GridValues<G>::kEach>([&](auto i) EDGEQUANT_UNROLLED {
    constexpr int kEach = GridValues<G>::kEach;
    const auto v = hn::Load(D8(), reinterpret_cast<const uint8_t*>(grid.wide[i / kEach]) + i % kEach * 64);
    values.table.template At<i>() = hn::Xor(v, hn::Set(D8(), uint8_t(flip_tops ? 128 : 0)));
  });
  return values;
}
template <int kStep, class G>
HWY_INLINE Line ValueOf(const GridValues<G>& values, V8 index) {
  constexpr int i = G::kDim == 4 ? 0 : kStep;
  Line line;
  if constexpr (G::kShifts)
    line.head = V8{_mm512_permutex2var_epi8(values.table.template At<2 * i>().raw, index.raw,
                                            values.table.template At<2 * i + 1>().raw)};
  else line.head = V8{_mm512_permutexvar_epi8(index.raw, values.table.template At<i>().raw)};
  return line;
}
template <uint8_t kMask>  // bits of the mask from `with`
HWY_INLINE V8 Mix(V8 v, V8 with) {
  return V8{_mm512_ternarylogic_epi64(_mm512_set1_epi8(char(kMask)), with.raw, v.raw, 0xca)};
}

// f(step constant, values) for the 4 steps of a half with these rows. The shifts of its codes are the bytes'
// top bits.
template <class G, int kOdd, class F>
HWY_INLINE void ForValues(const GridValues<G>& values, const UnitRows<G>& rows, [[maybe_unused]] const Line& signs,
                          [[maybe_unused]] const Line& shifts, const F& f) {
  if constexpr (G::kDim == 8) {
    const V8 row = rows.line.template At<kOdd>().head;
    V8 index[2] = {row, MoveBits<2, 0>(row)};
    if constexpr (G::kSigns) {
      const V8 s = MoveBits<2 * kOdd, 0>(signs.head);
      index[0] = Mix<0x30>(index[0], s);
      index[1] = Mix<0x03>(index[1], s);
    }
    if constexpr (G::kShifts) {
      const V8 s = MoveBits<1, 0>(shifts.head);
      for (V8& v : index) v = Mix<0x40>(v, s);
    }
    For<kHalfSteps>([&](auto i) EDGEQUANT_UNROLLED { f(i, ValueOf<i>(values, index[i / 2])); });
  } else {
    Line s = signs;
    if constexpr (kOdd) s = Twice(Twice(s));
    For<2>([&](auto pair) EDGEQUANT_UNROLLED {
      const V8 index = Mix<0x88>(rows.line.template At<2 * kOdd + pair>().head, s.head);
      f(std::integral_constant<int, 2 * pair>(), ValueOf<0>(values, index));
      f(std::integral_constant<int, 2 * pair + 1>(), ValueOf<0>(values, MoveBits<4, 0>(index)));
      s = Twice(s);
    });
  }
}

#else
constexpr bool kGridPermutes = false;

// Looks up the rows of a whole block before: 16 codes at a time where 256 rows fit the registers, else one by one.
template <class G>
class RowReader {
 public:
  explicit RowReader(const GridPanel& grid) : grid_(grid) {}
  HWY_NOINLINE void Start(const uint8_t* HWY_RESTRICT block) {
#if HWY_ARCH_ARM_A64
    if constexpr (G::kCodeBits == 8) return LookUpPlanes(block);
#endif
    alignas(64) uint8_t words[G::kDim == 4 ? sizeof(rows_) : 1];
    for (int j = 0; j < G::kCodeLines; ++j) {
      const uint8_t* const above = block + (G::kCodeLines + j / 8) * kPanelLine;
      uint16_t code[kPanelLine];
      for (int i = 0; i < kPanelLine; ++i) {
        int c = block[j * kPanelLine + i];
        for (int k = 0; k < G::kCodeBits - 8; ++k)
          c |= (above[k * G::kCodeLines / 8 * kPanelLine + i] >> j % 8 & 1) << (8 + k);
        code[i] = uint16_t(c);
      }
      uint8_t* const to = (G::kDim == 4 ? words : rows_) + 2 * j * kPanelLine;
      for (int i = 0; i < kPanelLine; i += 2) {
        const uint32_t pair = grid_.rows[code[i]] | uint32_t{grid_.rows[code[i + 1]]} << 16;
        memcpy(to + (G::kDim == 8 ? i / 4 * 4 + i % 4 / 2 * kPanelLine : 2 * i), &pair, 4);
      }
    }
    // Both bytes apart, later: what is read in larger pieces than it was written must have reached the cache.
    for (int j = 0; j < G::kCodeLines && G::kDim == 4; ++j) {
      uint8_t *HWY_RESTRICT low = rows_ + 2 * j * kPanelLine, *HWY_RESTRICT high = low + kPanelLine;
      for (int i = 0; i < kPanelLine; ++i) {
        uint16_t row;
        memcpy(&row, words + 2 * (j * kPanelLine + i), 2);
        low[i] = uint8_t(row), high[i] = uint8_t(row >> 8);
      }
    }
  }
  HWY_INLINE void Read(int unit, UnitRows<G>& rows) { rows.Load(rows_ + unit * UnitRows<G>::kBytes); }

 private:
#if HWY_ARCH_ARM_A64
  HWY_INLINE void LookUpPlanes(const uint8_t* HWY_RESTRICT block) {
    for (int plane = 0; plane < 2; ++plane) {
      uint8x16x4_t table[4];
      for (int i = 0; i < 4; ++i) table[i] = vld1q_u8_x4(grid_.planes[plane] + 64 * i);
      for (int j = 0; j < G::kCodeLines; ++j)
        for (int i = 0; i < kPanelLine; i += 16) {
          const uint8x16_t code = vld1q_u8(block + j * kPanelLine + i), step = vdupq_n_u8(64);
          const uint8x16_t second = vsubq_u8(code, step), third = vsubq_u8(second, step);
          uint8x16_t row = vqtbx4q_u8(vqtbl4q_u8(table[0], code), table[1], second);
          row = vqtbx4q_u8(vqtbx4q_u8(row, table[2], third), table[3], vsubq_u8(third, step));
          uint8_t* const to = rows_ + 2 * j * kPanelLine + i;
          if (G::kDim == 4 || plane == 0) {
            vst1q_u8(to + plane * kPanelLine, row);
          } else {
            const uint8x16_t low = vld1q_u8(to);
            const auto a = vreinterpretq_u32_u8(vzip1q_u8(low, row)), b = vreinterpretq_u32_u8(vzip2q_u8(low, row));
            vst1q_u8(to, vreinterpretq_u8_u32(vuzp1q_u32(a, b)));
            vst1q_u8(to + kPanelLine, vreinterpretq_u8_u32(vuzp2q_u32(a, b)));
          }
        }
    }
  }
#endif

  const GridPanel& grid_;
  alignas(64) uint8_t rows_[kUnits * UnitRows<G>::kBytes];
};

template <class G>
using GridValues = Table16;
template <class G>
HWY_INLINE Table16 LoadValues(G, const GridPanel& grid, bool flip_tops) {
  const Table16 t = LoadTable(grid.values);
  return flip_tops ? FlipTops(t) : t;
}
template <class G, int kOdd, class F>
HWY_INLINE void ForValues(const Table16& values, const UnitRows<G>& rows, [[maybe_unused]] const Line& signs,
                          [[maybe_unused]] const Line& shifts, const F& f) {
  For<kHalfSteps>([&](auto i) EDGEQUANT_UNROLLED {
    constexpr int kLevelBits = G::kDim == 8 ? 2 : 3;
    Line code;
    if constexpr (G::kDim == 8) code = BitsOf<2, 2 * i, 0>(rows.line.template At<kOdd>());
    else code = BitsOf<3, 4 * (i % 2), 0>(rows.line.template At<2 * kOdd + i / 2>());
    if constexpr (G::kSigns) code = WithBitsOf<1, GridSignBit(G::kDim, i, kOdd), kLevelBits>(code, signs);
    if constexpr (G::kShifts) code = WithBitsOf<1, 7, 3>(code, shifts);
    f(i, LookUp(values, code));
  });
}
#endif

// Shifts of codes: bytes in the order of a half's rows. To the next line of codes their bits move up by one.
struct ShiftLines {
  Line half[2];
};
template <class G>
HWY_INLINE ShiftLines LoadShifts(const uint8_t* block) {
  if constexpr (!G::kShifts) return {LoadLine(block), LoadLine(block)};
  const Line v = LoadLine(block + G::kShiftLine * kPanelLine);
  return {TwicePairs<0>(v), TwicePairs<2>(v)};
}

// f(half number, step constant, values) for all 64 steps of a block; before(half number, odd constant) and
// after(half number, odd constant) each half.
template <class G, class Before, class F, class After>
HWY_INLINE void ForBlock(RowReader<G>& reader, const GridValues<G>& values, const uint8_t* HWY_RESTRICT block,
                         const Before& before, const F& f, const After& after) {
  constexpr int kAheadLines = (G::kLines + 2 + 7) / 8;  // a block's, and some of the header, in each 32 k
  ShiftLines shifts = LoadShifts<G>(block);
  reader.Start(block);
  UnitRows<G> rows, next;
  reader.Read(0, rows);
  for (int u = 0; u < kUnits; ++u) {
    For<kAheadLines>([&](auto i) EDGEQUANT_UNROLLED {
      hwy::Prefetch(block + kAhead + (u * kAheadLines + i - 2) * kPanelLine);
    });
    const Line signs = LoadLine(block + (G::kSigns ? G::kSignLine + u : 0) * kPanelLine);
    reader.Read(HWY_MIN(u + 1, kUnits - 1), next);  // now: looking up takes its time
    For<2>([&](auto odd) EDGEQUANT_UNROLLED {
      before(2 * u + odd, odd);
      ForValues<G, odd>(values, rows, signs, shifts.half[odd],
                        [&](auto i, const Line& v) EDGEQUANT_UNROLLED { f(2 * u + odd, i, v); });
      after(2 * u + odd, odd);
      if constexpr (G::kShifts) shifts.half[odd] = Twice(shifts.half[odd]);
    });
    rows = next;
  }
}

// Block number b of a panel: its header's scales and codes, and its lines.
template <class G>
struct GridBlockAt {
  const uint8_t *number, *codes, *lines;
  GridBlockAt(const PanelLayout& layout, const uint8_t* panel, size_t b) {
    constexpr size_t kCodes = G::kScaleLines * kPanelLine, kBlock = G::kLines * kPanelLine;
    const uint8_t* const header = panel + b / kGridHeaderBlocks * layout.grid_bytes;
    const size_t in_header = b % kGridHeaderBlocks;
    number = header + in_header * 2 * kPanelRows;
    codes = header + kPanelLine + in_header * kCodes;
    lines = header + kPanelLine + kGridHeaderBlocks * kCodes + in_header * kBlock;
  }
};

// The integers of group g of a block, by dot products with numbers that are 0 but for the byte where the code lies.
template <int kFactor>
struct ByteTimes {
  alignas(4) static constexpr int8_t at[4][4] = {
      {kFactor, 0, 0, 0}, {0, kFactor, 0, 0}, {0, 0, kFactor, 0}, {0, 0, 0, kFactor}};
};
template <class G>
HWY_INLINE void ReadSubScale(const GridBlockAt<G>& block, size_t g, Ints* scale, Ints* minimum) {
  constexpr int kBits = G::kShift == GridShift::kGroup ? 3 : 4;
  const Line codes = LoadLine(block.codes + g / 8 * kPanelLine);
  const size_t byte = g % 8 / 2;
  const Line code = g % 2 ? BitsOf<kBits, 4, 0>(codes) : BitsOf<kBits, 0, 0>(codes);
  *scale = DotCodes<true>(SetInts(1), code, LoadQuad(ByteTimes<2>::at[byte]));
  if constexpr (kBits == 3) {
    const Line down = g % 2 ? BitsOf<1, 7, 0>(codes) : BitsOf<1, 3, 0>(codes);
    *minimum = TimesPlus(*scale, DotCodes<true>(SetInts(1), down, LoadQuad(ByteTimes<-2>::at[byte])), SetInts(0));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace edgequant::panel
EDGEQUANT_AFTER_VNNI
HWY_AFTER_NAMESPACE();

#endif  // EDGEQUANT_GRID_LINES_INL_H_
