// GGML's block formats. In the byte pictures a field is `name: what, bytes`, one block from left to right, f16 scales
// little-endian, nibbles and bits low first. Sub-blocks share a scale. All offsets count from the start of the block.
#pragma once
#include "format/block.h"
#include "format/ggml_grids.h"

namespace edgequant::ggml {

constexpr Number kF16 = Number::kF16;

// ---- Plain numbers: blocks of one weight without a code, (0 - (-1)) times the number.
inline constexpr Block F32 = {1, 4, {}, Affine(-1), {Number::kF32, 0}};
inline constexpr Block F16 = {1, 2, {}, Affine(-1), {Number::kF16, 0}};
inline constexpr Block BF16 = {1, 2, {}, Affine(-1), {Number::kBF16, 0}};

// ---- One scale per 32 weights. Byte j of qs holds weight j in its low and weight j + 16 in its high nibble.
// Q4_0, 4.5 bits: [d 2][qs 16], d * (q - 8): -8 .. 7 times d.
inline constexpr Block Q4_0 = {32, 18, {Planes(2, 4, 16, 2)}, Affine(8), {kF16, 0}};
// Q4_1, 5 bits: [d 2][m 2][qs 16], d * q + m.
inline constexpr Block Q4_1 = {32, 20, {Planes(4, 4, 16, 2)}, Affine(0), {kF16, 0}, {kF16, 2}};
// Q5_0, 5.5 bits: [d 2][qh 4][qs 16], bit i of qh is bit 4 of weight i, d * (q - 16).
inline constexpr Block Q5_0 = {32, 22, {Planes(6, 4, 16, 2), Stream(2, 1, 4)}, Affine(16), {kF16, 0}};
// Q5_1, 6 bits: [d 2][m 2][qh 4][qs 16], d * q + m.
inline constexpr Block Q5_1 = {32, 24, {Planes(8, 4, 16, 2), Stream(4, 1, 4)}, Affine(0), {kF16, 0}, {kF16, 2}};
// Q8_0, 8.5 bits: [d 2][qs 32 signed], d * q.
inline constexpr Block Q8_0 = {32, 34, {Signed8(2)}, Affine(0), {kF16, 0}};
// Q1_0, 1.125 bits: [d 2][qs 16], 128 weights of one bit, -d or +d.
inline constexpr Block Q1_0 = {128, 18, {Stream(2, 1)}, {MapKind::kTable, 0, {-1, 1}}, {kF16, 0}};
// Q2_0, 2.25 bits: [d 2][qs 16], 64 weights, four consecutive ones per byte, d * (q - 1): -1 .. 2 times d.
inline constexpr Block Q2_0 = {64, 18, {Stream(2, 2)}, Affine(1), {kF16, 0}};

// ---- K-quants: 256 weights, an f16 super-scale times a small integer per sub-block.
// Q2_K, 2.625 bits: [scales 16][qs 64][d 2][dmin 2], 16 sub-blocks of 16. A byte of scales is one sub-block: low nibble
// s, high nibble m. qs: byte l of each 32 holds weights l, l + 32, l + 64, l + 96 in bit pairs. d * s * q - dmin * m.
inline constexpr Block Q2_K = {256, 84, {Planes(16, 2, 32, 4)}, Affine(0),
                               {kF16, 80, 0, 1, 16, 0, {Strided(0, 4, 16, 8, 1, 0)}},
                               {kF16, 82, 0, -1, 16, 0, {Strided(4, 4, 16, 8, 1, 0)}}};
// Q3_K, 3.4375 bits: [hmask 32][qs 64][scales 12][d 2], 16 sub-blocks of 16, low two bits as in Q2_K; bit i / 32 of
// hmask[i % 32] is bit 2. scales: low nibbles of s0-7, high nibbles s8-15 in bytes 0-7; bit pairs of bytes 8-11 are
// bits 4-5: byte 8 + j % 4, pair j / 4. d * (s - 32) * (q - 4).
inline constexpr Block Q3_K = {256, 110, {Planes(32, 2, 32, 4), Planes(0, 1, 32, 8, 2)}, Affine(4),
                               {kF16, 108, 0, 1, 16, 32, {Planes(96, 4, 8, 2), Planes(104, 2, 4, 4, 4)}}};
// The 6-bit scales s and minima m of Q4_K and Q5_K, 8 + 8 numbers in 12 bytes, two halves of four:
//   bytes 0-3   s0-3 in bits 0-5, bits 4-5 of s4-7 in bits 6-7
//   bytes 4-7   m0-3 in bits 0-5, bits 4-5 of m4-7 in bits 6-7
//   bytes 8-11  low nibbles: bits 0-3 of s4-7; high nibbles: bits 0-3 of m4-7
constexpr Level K6Scale(int d, int s) {
  return {kF16, d, 0, 1, 32, 0, {Strided(s * 8, 4, 4, 8, 2, 64), Strided(s * 8 + 4, 2, 4, 8, 2, 2, 0, 4)}};
}
constexpr Level K6Min(int d, int s) {
  return {kF16, d, 0, -1, 32, 0, {Strided(s * 8 + 32, 4, 4, 8, 2, 36), Strided(s * 8 + 36, 2, 4, 8, 2, 2, 0, 4)}};
}
// Q4_K, 4.5 bits: [d 2][dmin 2][scales 12][qs 128], 8 sub-blocks of 32. qs: byte l of each 32 holds a weight of one
// sub-block in its low and the same one of the next in its high nibble. d * s * q - dmin * m.
inline constexpr Block Q4_K = {256, 144, {Planes(16, 4, 32, 2)}, Affine(0), K6Scale(0, 4), K6Min(2, 4)};
// Q5_K, 5.5 bits: [d 2][dmin 2][scales 12][qh 32][qs 128], as Q4_K; bit j of qh[l] is bit 4 of weight 32 j + l.
inline constexpr Block Q5_K = {256, 176, {Planes(48, 4, 32, 2), Planes(16, 1, 32, 8, 4)}, Affine(0),
                               K6Scale(0, 4), K6Min(2, 4)};
// Q6_K, 6.5625 bits: [ql 128][qh 64][scales 16 signed][d 2], 16 sub-blocks of 16. Per 128 weights: byte l of 64 in ql
// holds bits 0-3 of weights l and l + 64, byte l of 32 in qh bits 4-5 of weights l, l + 32, l + 64, l + 96.
// d * s * (q - 32).
inline constexpr Block Q6_K = {256, 210, {Planes(0, 4, 64, 2), Planes(128, 2, 32, 4, 4)}, Affine(32),
                               {kF16, 208, 0, 1, 16, 0, {Signed8(192)}}};

// ---- Sixteen levels of an uneven table.
constexpr Map kInt4Levels = {
    MapKind::kTable, 0, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
// IQ4_NL, 4.5 bits: as Q4_0, d * table[q].
inline constexpr Block IQ4_NL = {32, 18, {Planes(2, 4, 16, 2)}, kInt4Levels, {kF16, 0}};
// IQ4_XS, 4.25 bits: [d 2][scales_h 2][scales_l 4][qs 128], 8 sub-blocks of 32 with Q4_0's nibble order; scale j has
// its low bits in nibble j of scales_l, the high ones in bit pair j of scales_h. d * (s - 32) * table[q].
inline constexpr Block IQ4_XS = {256, 136, {Planes(8, 4, 16, 2)}, kInt4Levels,
                                 {kF16, 0, 0, 1, 32, 32, {Stream(4, 4), Stream(2, 2, 4)}}};

// ---- E2M1 floats: sign, 2 exponent bits, 1 mantissa bit. Minus zero (code 8) reads as zero, as in GGML's table.
constexpr Map kE2M1 = {MapKind::kTable, 0, {0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6}};
constexpr Map kE2M1x2 = {MapKind::kTable, 0, {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}};
// MXFP4, 4.25 bits: [e 1][qs 16], as Q4_0; 2^(e - 128) * 2 E2M1, whole numbers times half the scale as GGML has it.
inline constexpr Block MXFP4 = {32, 17, {Planes(1, 4, 16, 2)}, kE2M1x2, {Number::kE8M0Half, 0}};
// NVFP4, 4.5 bits: [d 4][qs 32], 4 sub-blocks of 16, each with a UE4M3 scale and 8 bytes of which byte j holds weights
// j and j + 8. d * E2M1; the scale of the tensor is not in the block.
inline constexpr Block NVFP4 = {64, 36, {Planes(4, 4, 8, 2)}, kE2M1, {Number::kUE4M3, 0, 16}};

// ---- Ternary: -d, 0, d.
// TQ1_0, 1.6875 bits: [qs 48][qh 4][d 2], five base-3 digits per byte (four in qh): byte l of the first 32 has weights
// l, l + 32 .. l + 128, byte l of the next 16 weights 160 + l, + 16 .., byte l of qh weights 240 + l, + 4 ...
inline constexpr Block TQ1_0 = {
    256, 54, {Trits(0, 32, 5, 0, 160), Trits(32, 16, 5, 160, 240), Trits(48, 4, 4, 240, 256)}, Ternary(), {kF16, 52}};
// TQ2_0, 2.0625 bits: [qs 64][d 2], bit pairs as in Q2_K, d * (q - 1).
inline constexpr Block TQ2_0 = {256, 66, {Planes(0, 2, 32, 4)}, Ternary(), {kF16, 64}};

// ---- Vector grids: one code per 8 (IQ1, IQ2) or 4 (IQ3) weights picks a row of a grid of magnitudes; signs apart.
// IQ2_XXS, 2.0625 bits: [d 2] and per 32 weights [codes 4][u32: 4 x 7 signs, scale in the top 4 bits].
// d / 4 * (s + 1/2) * row * signs, s per 32.
inline constexpr Block IQ2_XXS = {256, 66, {Strided(16, 8, 4, 8, 1, 0, 64)},
                                  Grid(kGridIQ2_XXS, Strided(48, 7, 4, 7, 1, 0, 64)),
                                  {kF16, 0, 0, .25f, 32, -.5f, {Strided(76, 4, 1, 0, 1, 0, 64)}}};
// IQ2_XS, 2.3125 bits: [d 2][u16 x 32: 9-bit code, 7 signs][scales 8], s per 16 weights in nibble order.
inline constexpr Block IQ2_XS = {256, 74, {Strided(16, 8, 1, 0, 1, 0, 16), Strided(24, 1, 1, 0, 1, 0, 16, 8)},
                                 Grid(kGridIQ2_XS, Strided(25, 7, 1, 0, 1, 0, 16)),
                                 {kF16, 0, 0, .25f, 16, -.5f, {Stream(66, 4)}}};
// IQ2_S, 2.5625 bits: [d 2][codes 32][signs 32][qh 8][scales 8], bit pair j of qh is bits 8-9 of code j. All signs
// are free.
inline constexpr Block IQ2_S = {256, 82, {Stream(2, 8), Stream(66, 2, 8)}, Grid(kGridIQ2_S, Stream(34, 8)),
                                {kF16, 0, 0, .25f, 16, -.5f, {Stream(74, 4)}}};
// IQ3_XXS, 3.0625 bits: [d 2][codes 64][u32 x 8: 4 x 7 signs, scale], d / 2 * (s + 1/2) * row * signs, s per 32.
inline constexpr Block IQ3_XXS = {256, 98, {Stream(2, 8)}, Grid(kGridIQ3_XXS, Strided(528, 7, 4, 7, 1, 0, 32)),
                                  {kF16, 0, 0, .5f, 32, -.5f, {Strided(556, 4, 1, 0, 1, 0, 32)}}};
// IQ3_S, 3.4375 bits: [d 2][codes 64][qh 8][signs 32][scales 4], bit j of qh is bit 8 of code j.
// d * (2 s + 1) * row * signs, s per 32.
inline constexpr Block IQ3_S = {256, 110, {Stream(2, 8), Stream(66, 1, 8)}, Grid(kGridIQ3_S, Stream(74, 8)),
                                {kF16, 0, 0, 2, 32, -.5f, {Stream(106, 4)}}};
// IQ1_S, 1.5625 bits: [d 2][codes 32][qh: u16 x 8], per 32 weights: 4 x 3 upper code bits, s in bits 12-14, and bit 15
// set to move the rows down. d * (2 s + 1) * (row +- 1/8), rows of -1, 0, 1.
inline constexpr Block IQ1_S = {256, 50, {Stream(2, 8), Strided(272, 3, 4, 3, 1, 0, 16, 8)},
                                ShiftedGrid(kGridIQ1_S, .125f, Strided(287, 1, 4, 0, 1, 0, 16)),
                                {kF16, 0, 0, 2, 32, -.5f, {Strided(284, 3, 1, 0, 1, 0, 16)}}};
// IQ1_M, 1.75 bits: [codes 32][qh 16][scales: u16 x 4]. Nibble j of qh: upper 3 bits of code j, then the shift bit of
// its 8 weights. Each u16: four 3-bit s of 16 weights each, then 4 bits of the f16 super-scale, lowest first.
inline constexpr Block IQ1_M = {256, 56, {Stream(0, 8), Strided(256, 3, 1, 0, 1, 0, 4, 8)},
                                ShiftedGrid(kGridIQ1_S, .125f, Strided(259, 1, 1, 0, 1, 0, 4)),
                                {kF16, 0, 0, 2, 16, -.5f, {Strided(384, 3, 4, 3, 1, 0, 16)},
                                 Strided(396, 4, 1, 0, 1, 0, 16)}};

}  // namespace edgequant::ggml
