#include "op/decoder.h"

#include <string.h>

#include "core/error.h"
#include "core/threads.h"
#include "kernels/cpu/attend.h"

namespace edgequant {
namespace {

// Below this many multiplications attention is done before other threads have begun.
constexpr size_t kSerialAttention = 1 << 16;

void CheckPanel(const Panel& p, size_t rows, size_t cols) {
  if (p.rows != rows || p.cols != cols)
    Fail("a matrix of the decoder is ", p.rows, " x ", p.cols, ", expected ", rows, " x ", cols);
}

}  // namespace

Decoder::Decoder(const DecoderShape& shape, std::vector<DecoderLayer> layers, const float* final_norm)
    : shape_(shape), layers_(std::move(layers)), final_norm_(final_norm) {
  const size_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  if (shape.hidden % kRowMultiple != 0 || shape.head_dim % kRowMultiple != 0 || shape.kv_heads == 0 ||
      shape.heads % shape.kv_heads != 0)
    Fail("a decoder of width ", shape.hidden, " with ", shape.heads, " heads of ", shape.head_dim, " over ",
         shape.kv_heads, " is not supported");
  for (const DecoderLayer& l : layers_) {
    CheckPanel(*l.query, q, shape.hidden);
    CheckPanel(*l.key, kv, shape.hidden);
    CheckPanel(*l.value, kv, shape.hidden);
    CheckPanel(*l.output, shape.hidden, q);
    CheckPanel(*l.gate, l.up->rows, shape.hidden);
    CheckPanel(*l.up, l.gate->rows, shape.hidden);
    CheckPanel(*l.down, shape.hidden, l.up->rows);
    if (l.up->rows % kRowMultiple != 0) Fail("a feed-forward part of width ", l.up->rows, " is not supported");
  }
}

void Decoder::Attend(const float* q, size_t rows, const float* keys, const float* values, const DecoderCache& cache,
                     float* y) const {
  const size_t n = cache.past + 1, d = shape_.head_dim, group = shape_.heads / shape_.kv_heads;
  const auto some = [&](size_t begin, size_t end) {
    std::vector<float> scores((n + kRowMultiple - 1) / kRowMultiple * kRowMultiple);
    for (size_t head = begin; head < end; ++head) {  // over rows and heads
      const size_t kv = head / group * cache.capacity * d;
      AttendHead(q + head * d, keys + kv, values + kv, n, d, shape_.scale, scores.data(), y + head * d);
    }
  };
  const size_t heads = rows * shape_.heads;
  if (heads * n * d < kSerialAttention) some(0, heads);
  else ParallelFor(heads, 1, some);
}

void Decoder::Step(float* x, size_t rows, const float* cos, const float* sin, const DecoderCache& cache) const {
  const size_t hidden = shape_.hidden, d = shape_.head_dim, q_width = shape_.heads * d, kv_width = shape_.kv_heads * d;
  const size_t one = rows * shape_.kv_heads * cache.capacity * d;  // keys, or values, of a layer
  size_t inner = 0;
  for (const DecoderLayer& l : layers_) inner = std::max(inner, l.up->rows);
  std::vector<float> norm(rows * hidden), out(rows * hidden), q(rows * q_width), attended(rows * q_width),
      kv(rows * kv_width), gate(rows * inner), up(rows * inner);
  const auto multiply = [&](const std::vector<float>& from, const Panel& w, float* to, const float* bias) {
    const ptrdiff_t from_row = ptrdiff_t(w.cols * sizeof(float)), to_row = ptrdiff_t(w.rows * sizeof(float));
    Matmul({FormatId::kF32, from.data(), rows, w.cols, from_row}, w, {FormatId::kF32, to, rows, w.rows, to_row},
           shape_.compute, bias);
  };
  const auto norm_rows = [&](const float* w) {
    for (size_t r = 0; r < rows; ++r) NormRow(x + r * hidden, w, shape_.eps, hidden, norm.data() + r * hidden);
  };
  const auto turn = [&](float* heads, size_t count, const float* w) {
    for (size_t h = 0; h < rows * count; ++h) {
      if (w) NormRow(heads + h * d, w, shape_.eps, d, heads + h * d);
      RotateHead(heads + h * d, cos, sin, d);
    }
  };
  const auto remember = [&](float* to) {  // one position of every head
    for (size_t h = 0; h < rows * shape_.kv_heads; ++h)
      memcpy(to + (h * cache.capacity + cache.past) * d, kv.data() + h * d, d * sizeof(float));
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    const DecoderLayer& l = layers_[i];
    float* keys = cache.data + i * 2 * one;
    float* values = keys + one;
    norm_rows(l.input_norm);
    multiply(norm, *l.query, q.data(), l.query_bias);
    turn(q.data(), shape_.heads, l.query_norm);
    multiply(norm, *l.key, kv.data(), l.key_bias);
    turn(kv.data(), shape_.kv_heads, l.key_norm);
    remember(keys);
    multiply(norm, *l.value, kv.data(), l.value_bias);
    remember(values);
    Attend(q.data(), rows, keys, values, cache, attended.data());
    multiply(attended, *l.output, out.data(), l.output_bias);
    AddRow(x, out.data(), rows * hidden);
    norm_rows(l.post_norm);
    multiply(norm, *l.gate, gate.data(), nullptr);
    multiply(norm, *l.up, up.data(), nullptr);
    GateRow(gate.data(), up.data(), rows * l.up->rows);
    multiply(gate, *l.down, out.data(), nullptr);
    AddRow(x, out.data(), rows * hidden);
  }
  for (size_t r = 0; r < rows; ++r) NormRow(x + r * hidden, final_norm_, shape_.eps, hidden, x + r * hidden);
}

}  // namespace edgequant
