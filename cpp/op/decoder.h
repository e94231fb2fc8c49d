// Tokens through all layers of a decoder-only transformer: norms before attention and the gated feed-forward part (and
// after them, if any), rotary positions, grouped heads, windows.
#pragma once
#include <vector>

#include "op/matmul.h"

namespace edgequant {

struct DecoderShape {
  size_t hidden, heads, kv_heads, head_dim;
  size_t rotary_dim;  // the first numbers of a head are rotated
  float eps, scale;   // of the norms; of the scores
  bool gelu;          // the gate's function: GELU (by tanh), or SiLU
  Compute compute;
  FormatId vectors;  // the type of norms and biases: f32 or bf16
  float norm_plus;   // added to the weights of norms
};

// Rows of a panel from `first` on: one of several matrices that may lie below each other in it.
struct PanelRows {
  const Panel* panel;
  size_t first;
};

// Weights of one layer. Query, key and value are panels of their own or lie in this order in one, as do gate and up.
// Biases, the norms of queries and keys and those of the outputs of attention and feed-forward part may be null.
struct DecoderLayer {
  PanelRows query, key, value, output, gate, up, down;
  const void *input_norm, *post_norm, *query_norm, *key_norm, *attention_norm, *feed_norm;
  const void *query_bias, *key_bias, *value_bias, *output_bias;
  size_t window;    // a token sees so many, itself included; 0: all
  size_t rotation;  // which of the tables of a step
};

// cos and sin of positions: (positions, rotary_dim).
struct Rotation {
  const float *cos, *sin;
};

struct DecoderTokens {
  size_t rows, count;        // sequences, and tokens of each
  const int64_t* positions;  // (rows, count): rows of the tables of rotations
  const int64_t* starts;     // (rows): the first position in the cache that may be seen; null: all
};

// Keys and values of all layers: (layers, 2, rows, kv_heads, capacity, head_dim) numbers of type f32 or bf16.
struct DecoderCache {
  FormatId type;
  void* data;
  size_t capacity;
  size_t past;  // positions that are filled
};

class Decoder {
 public:
  // Throws if shapes do not fit, or are not multiples of 16.
  Decoder(const DecoderShape& shape, std::vector<DecoderLayer> layers, const void* final_norm);

  // x (rows, count, hidden): embeddings, which become the last hidden states. The cache gets the keys and values of
  // positions [past, past + count). The same at any number of threads.
  void Step(float* x, const DecoderTokens& tokens, const std::vector<Rotation>& rotations,
            const DecoderCache& cache) const;

 private:
  friend class DecoderStep;
  DecoderShape shape_;
  std::vector<DecoderLayer> layers_;
  const void* final_norm_;
  size_t inner_ = 0;  // the largest width of a feed-forward part
};

}  // namespace edgequant
