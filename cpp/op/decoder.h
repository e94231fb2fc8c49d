// One token through all layers of a decoder-only transformer of the Llama kind: norms before attention and the gated
// feed-forward part, rotary positions, grouped heads.
#pragma once
#include <vector>

#include "op/matmul.h"

namespace edgequant {

struct DecoderShape {
  size_t hidden, heads, kv_heads, head_dim;
  float eps, scale;  // of the norms; of the scores
  Compute compute;
};

// Weights of one layer; biases and the norms of queries and keys may be null.
struct DecoderLayer {
  const Panel *query, *key, *value, *output, *gate, *up, *down;
  const float *input_norm, *post_norm, *query_norm, *key_norm;
  const float *query_bias, *key_bias, *value_bias, *output_bias;
};

// Keys and values of all layers: (layers, 2, rows, kv_heads, capacity, head_dim) floats.
struct DecoderCache {
  float* data;
  size_t capacity;
  size_t past;  // positions that are filled
};

class Decoder {
 public:
  // Throws if shapes do not fit, or are not multiples of 16.
  Decoder(const DecoderShape& shape, std::vector<DecoderLayer> layers, const float* final_norm);

  // x (rows, hidden): embeddings of one token per row, which become the last hidden states. cos, sin (head_dim) are of
  // position `past`, where the cache gets the new keys and values.
  void Step(float* x, size_t rows, const float* cos, const float* sin, const DecoderCache& cache) const;

 private:
  void Attend(const float* q, size_t rows, const float* keys, const float* values, const DecoderCache& cache,
              float* y) const;

  DecoderShape shape_;
  std::vector<DecoderLayer> layers_;
  const float* final_norm_;
};

}  // namespace edgequant
