// Quantizing with feedback: what one block of columns loses is made good, as far as the inputs' statistics allow, in
// the columns that are still to come.
#pragma once
#include "algo/quantize.h"
#include "algo/scheme.h"

namespace edgequant {

// With H = sum x x^T over the layer's inputs x, minimises tr((W - Q) H (W - Q)^T), the squared error of the layer's
// outputs, block of columns by block of columns, for any format. With H = L D L^T (L unit lower block triangular) the
// error is tr((E L) D (E L)^T), so going from the last block to the first, each block is quantized as W_k + sum_{j > k}
// E_j L_jk, with the diagonal of D_k as importance. LDLQ in QuIP's terms; GPTQ is its case of blocks of one column.
// Where levels are few what is fed back can add up: a row for which plain quantization, with the diagonal of H as
// importance, has the lower error by H gets that one.
//
// hessian: cols * cols numbers, symmetric; `damping` times the mean of its diagonal is added to the diagonal.
// options.importance and options.order are not used. Each row depends on that row alone: the same bytes at any thread
// count. Throws Error as Quantize does, and for a Hessian that is not finite or not positive semi-definite.
void QuantizeLdlq(const TensorView& w, FormatId to, const float* hessian, float damping, const QuantizeOptions& options,
                  uint8_t* out);

// The same for a run-time format whose scales are each a group's own: any of blocks, or planes with one level of
// scales. A table is learned first, and then fixed; a transformed format has its Hessian transformed, too.
void QuantizeSchemeLdlq(const Scheme& s, const float* x, size_t rows, size_t cols, const float* hessian, float damping,
                        Effort effort, const SchemeArrays<uint8_t>& arrays, std::vector<float>* table);

}  // namespace edgequant
