// GGML's block formats. Field and level offsets are in bytes from the start of the block.
#pragma once
#include "format/block.h"
#include "format/ggml_grids.h"

namespace edgequant::ggml {

constexpr Number kF16 = Number::kF16;
constexpr Map kInt4Grid = {MapKind::kTable, 0, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
constexpr Map kE2M1x2 = {MapKind::kTable, 0, {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}};
constexpr Map kE2M1 = {MapKind::kTable, 0, {0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6}};

// The 6-bit scales and minima of Q4_K and Q5_K: two halves of four. Scale: low nibbles of bytes 0-3 and 8-11.
// Minimum: low nibbles of bytes 4-7, high nibbles of 8-11. Upper bits: bits 4-5, then 6-7, of bytes 0-3 or 4-7.
constexpr Level K6Scale(int d, int s) { return {kF16, d, 0, 1, 32, 0, {Strided(s * 8, 4, 4, 8, 2, 64), Strided(s * 8 + 4, 2, 4, 8, 2, 2, 0, 4)}}; }
constexpr Level K6Min(int d, int s) { return {kF16, d, 0, -1, 32, 0, {Strided(s * 8 + 32, 4, 4, 8, 2, 36), Strided(s * 8 + 36, 2, 4, 8, 2, 2, 0, 4)}}; }

// Plain numbers are blocks of one weight without a code: 0 - (-1) = 1 times the number.
inline constexpr Block F32 = {1, 4, {}, Affine(-1), {Number::kF32, 0}};
inline constexpr Block F16 = {1, 2, {}, Affine(-1), {Number::kF16, 0}};
inline constexpr Block BF16 = {1, 2, {}, Affine(-1), {Number::kBF16, 0}};

inline constexpr Block Q4_0 = {32, 18, {Planes(2, 4, 16, 2)}, Affine(8), {kF16, 0}};
inline constexpr Block Q4_1 = {32, 20, {Planes(4, 4, 16, 2)}, Affine(0), {kF16, 0}, {kF16, 2}};
inline constexpr Block Q5_0 = {32, 22, {Planes(6, 4, 16, 2), Stream(2, 1, 4)}, Affine(16), {kF16, 0}};
inline constexpr Block Q5_1 = {32, 24, {Planes(8, 4, 16, 2), Stream(4, 1, 4)}, Affine(0), {kF16, 0}, {kF16, 2}};
inline constexpr Block Q8_0 = {32, 34, {Signed8(2)}, Affine(0), {kF16, 0}};
inline constexpr Block Q2_K = {256, 84, {Planes(16, 2, 32, 4)}, Affine(0),
                               {kF16, 80, 0, 1, 16, 0, {Strided(0, 4, 16, 8, 1, 0)}}, {kF16, 82, 0, -1, 16, 0, {Strided(4, 4, 16, 8, 1, 0)}}};
inline constexpr Block Q3_K = {256, 110, {Planes(32, 2, 32, 4), Planes(0, 1, 32, 8, 2)}, Affine(4),
                               {kF16, 108, 0, 1, 16, 32, {Planes(96, 4, 8, 2), Planes(104, 2, 4, 4, 4)}}};
inline constexpr Block Q4_K = {256, 144, {Planes(16, 4, 32, 2)}, Affine(0), K6Scale(0, 4), K6Min(2, 4)};
inline constexpr Block Q5_K = {256, 176, {Planes(48, 4, 32, 2), Planes(16, 1, 32, 8, 4)}, Affine(0), K6Scale(0, 4), K6Min(2, 4)};
inline constexpr Block Q6_K = {256, 210, {Planes(0, 4, 64, 2), Planes(128, 2, 32, 4, 4)}, Affine(32), {kF16, 208, 0, 1, 16, 0, {Signed8(192)}}};
inline constexpr Block IQ4_NL = {32, 18, {Planes(2, 4, 16, 2)}, kInt4Grid, {kF16, 0}};
inline constexpr Block IQ4_XS = {256, 136, {Planes(8, 4, 16, 2)}, kInt4Grid, {kF16, 0, 0, 1, 32, 32, {Stream(4, 4), Stream(2, 2, 4)}}};
inline constexpr Block TQ1_0 = {256, 54, {Trits(0, 32, 5, 0, 160), Trits(32, 16, 5, 160, 240), Trits(48, 4, 4, 240, 256)}, Affine(1), {kF16, 52}};
inline constexpr Block TQ2_0 = {256, 66, {Planes(0, 2, 32, 4)}, Affine(1), {kF16, 64}};
inline constexpr Block MXFP4 = {32, 17, {Planes(1, 4, 16, 2)}, kE2M1x2, {Number::kE8M0Half, 0}};
inline constexpr Block NVFP4 = {64, 36, {Planes(4, 4, 8, 2)}, kE2M1, {Number::kUE4M3, 0, 16}};
inline constexpr Block Q1_0 = {128, 18, {Stream(2, 1)}, {MapKind::kTable, 0, {-1, 1}}, {kF16, 0}};
inline constexpr Block Q2_0 = {64, 18, {Stream(2, 2)}, Affine(1), {kF16, 0}};

// Vector grids: one code per 8 (or 4) weights. Signs of the XXS and XS types come in 7-bit groups.
constexpr Field Signs7(int start, int chunk_step) { return Strided(start, 1, 8, 1, 4, 7, chunk_step); }
inline constexpr Block IQ2_XXS = {256, 66, {Strided(16, 8, 4, 8, 1, 0, 64)}, Grid(kGridIQ2_XXS, Signs7(48, 64), true),
                                  {kF16, 0, 0, .25f, 32, -.5f, {Strided(76, 4, 1, 0, 1, 0, 64)}}};
inline constexpr Block IQ2_XS = {256, 74, {Strided(16, 9, 1, 0, 1, 0, 16)}, Grid(kGridIQ2_XS, Strided(25, 1, 8, 1, 1, 0, 16), true),
                                 {kF16, 0, 0, .25f, 16, -.5f, {Stream(66, 4)}}};
inline constexpr Block IQ2_S = {256, 82, {Stream(2, 8), Stream(66, 2, 8)}, Grid(kGridIQ2_S, Stream(34, 1), false), {kF16, 0, 0, .25f, 16, -.5f, {Stream(74, 4)}}};
inline constexpr Block IQ3_XXS = {256, 98, {Stream(2, 8)}, Grid(kGridIQ3_XXS, Signs7(528, 32), true), {kF16, 0, 0, .5f, 32, -.5f, {Strided(556, 4, 1, 0, 1, 0, 32)}}};
inline constexpr Block IQ3_S = {256, 110, {Stream(2, 8), Stream(66, 1, 8)}, Grid(kGridIQ3_S, Stream(74, 1), false), {kF16, 0, 0, 2, 32, -.5f, {Stream(106, 4)}}};

// Ternary grids of 8 weights, all moved by +-1/8. Scales are 2 s + 1 = 2 (s + 1/2), 3 bits per 32 or 16 weights; the f16 of
// IQ1_M lies in the top nibbles of its four 16-bit words of scales.
inline constexpr Block IQ1_S = {256, 50, {Stream(2, 8), Strided(272, 3, 4, 3, 1, 0, 16, 8)},
                                ShiftedGrid(kGridIQ1_S, .125f, 32, Strided(287, 1, 1, 0, 1, 0, 16)),
                                {kF16, 0, 0, 2, 32, -.5f, {Strided(284, 3, 1, 0, 1, 0, 16)}}};
inline constexpr Block IQ1_M = {256, 56, {Stream(0, 8), Strided(256, 3, 1, 0, 1, 0, 4, 8)},
                                ShiftedGrid(kGridIQ1_S, .125f, 8, Strided(259, 1, 1, 0, 1, 0, 4)),
                                {kF16, 0, 0, 2, 16, -.5f, {Strided(384, 3, 4, 3, 1, 0, 16)}, Strided(396, 4, 1, 0, 1, 0, 16)}};

}  // namespace edgequant::ggml
