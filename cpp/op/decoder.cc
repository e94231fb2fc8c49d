#include "op/decoder.h"

#include <algorithm>

#include "core/error.h"
#include "core/team.h"
#include "kernels/cpu/attend.h"
#include "op/few_rows.h"

namespace edgequant {
namespace {

constexpr size_t kGoes = 4;  // of few tokens that a short text may take
size_t SizeOf(FormatId type) { return type == FormatId::kF32 ? 4 : 2; }
size_t Width(const PanelRows& w) { return w.panel->cols; }

void CheckPanel(const PanelRows& w, size_t rows, size_t cols) {
  if (w.panel->rows < w.first + rows || w.panel->cols != cols || w.first % kRowMultiple != 0)
    Fail("a matrix of the decoder is ", w.panel->rows, " x ", w.panel->cols, ", expected rows ", w.first, " to ",
         w.first + rows, " of ", cols);
  if (w.panel->floats) Fail("the decoder takes no matrix without a panel, as of weights in ", w.panel->format);
  if (w.panel->input)
    Fail("the decoder does not transform the inputs of a matrix, as weights in ", w.panel->format, " need");
}

}  // namespace

Decoder::Decoder(const DecoderShape& shape, std::vector<DecoderLayer> layers, const void* final_norm)
    : shape_(shape), layers_(std::move(layers)), final_norm_(final_norm) {
  const size_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  if (shape.hidden % kRowMultiple != 0 || shape.head_dim % kRowMultiple != 0 || shape.rotary_dim % kRowMultiple != 0 ||
      shape.rotary_dim > shape.head_dim || shape.kv_heads == 0 || shape.heads % shape.kv_heads != 0)
    Fail("a decoder of width ", shape.hidden, " with ", shape.heads, " heads of ", shape.head_dim, " (",
         shape.rotary_dim, " rotated) over ", shape.kv_heads, " is not supported");
  for (const DecoderLayer& l : layers_) {
    const size_t inner = Width(l.down);
    CheckPanel(l.query, q, shape.hidden);
    CheckPanel(l.key, kv, shape.hidden);
    CheckPanel(l.value, kv, shape.hidden);
    CheckPanel(l.output, shape.hidden, q);
    CheckPanel(l.gate, inner, shape.hidden);
    CheckPanel(l.up, inner, shape.hidden);
    CheckPanel(l.down, shape.hidden, inner);
    if (inner % kRowMultiple != 0) Fail("a feed-forward part of width ", inner, " is not supported");
    inner_ = std::max(inner_, inner);
  }
}

// What one step works on. Tokens are all those of all rows.
class DecoderStep {
 public:
  DecoderStep(const Decoder& decoder, float* x, const DecoderTokens& tokens, const std::vector<Rotation>& rotations,
              const DecoderCache& cache)
      : decoder_(decoder), s_(decoder.shape_), in_(tokens), rotations_(rotations), cache_(cache), x_(x),
        tokens_(tokens.rows * tokens.count), q_width_(s_.heads * s_.head_dim), kv_width_(s_.kv_heads * s_.head_dim),
        qkv_width_(q_width_ + 2 * kv_width_), qkv_(tokens_ * qkv_width_), attended_(tokens_ * q_width_),
        inner_(tokens_ * 2 * decoder.inner_), out_(tokens_ * s_.hidden) {}

  void Run() {
    if (FewRows::Hold(tokens_, s_.compute)) {
      WithTeam([&](Team& team) {
        for (size_t i = 0; i < decoder_.layers_.size(); ++i) LayerOfFew(team, i);
      });
    } else {
      norm_.resize(tokens_ * s_.hidden);
      for (size_t i = 0; i < decoder_.layers_.size(); ++i) LayerOfMany(i);
    }
    NormRows(decoder_.final_norm_, x_);
  }

 private:
  // What a thread keeps between steps.
  struct Memory {
    FewRows input;
    Scratch norm, scores;
  };
  static Memory& Own() {
    static thread_local Memory memory;
    return memory;
  }

  // ---- between the products ----

  void Norm(const float* x, const void* w, size_t n, float* y) const {
    NormRow(x, s_.vectors, w, s_.norm_plus, s_.eps, n, y);
  }
  void NormRows(const void* w, float* y) const {
    for (size_t n = 0; n < tokens_; ++n) Norm(x_ + n * s_.hidden, w, s_.hidden, y + n * s_.hidden);
  }

  // y += numbers [first, first + count) of a bias, if there is one.
  void AddBias(float* y, const void* bias, size_t first, size_t count) const {
    if (bias) AddRow(y, s_.vectors, static_cast<const uint8_t*>(bias) + first * SizeOf(s_.vectors), count);
  }

  // Adds the output of a part to x, normed if it has a norm.
  void AddOut(const void* w) {
    for (size_t n = 0; n < tokens_; ++n) {
      float* out = out_.data() + n * s_.hidden;
      if (w) Norm(out, w, s_.hidden, out);
      AddRow(x_ + n * s_.hidden, FormatId::kF32, out, s_.hidden);
    }
  }

  size_t CacheAt(size_t layer, bool values, size_t row, size_t head) const {
    return (((layer * 2 + values) * in_.rows + row) * s_.kv_heads + head) * cache_.capacity * s_.head_dim;
  }
  const void* CacheData(size_t at) const {
    return static_cast<const uint8_t*>(cache_.data) + at * SizeOf(cache_.type);
  }

  // Norms and rotates one of the heads (queries, keys, values in this order) of a token, and remembers keys and values.
  void FinishHead(size_t layer, size_t n, size_t head) {
    const DecoderLayer& l = decoder_.layers_[layer];
    const size_t d = s_.head_dim, keys = s_.heads, values = keys + s_.kv_heads;
    float* x = qkv_.data() + n * qkv_width_ + head * d;
    if (head < values) {
      const void* w = head < keys ? l.query_norm : l.key_norm;
      if (w) Norm(x, w, d, x);
      const Rotation& r = rotations_[l.rotation];
      const size_t at = size_t(in_.positions[n]) * s_.rotary_dim;
      RotateHead(x, r.cos + at, r.sin + at, s_.rotary_dim);
      if (head < keys) return;
    }
    const bool is_value = head >= values;
    const size_t at = CacheAt(layer, is_value, n / in_.count, head - (is_value ? values : keys));
    StoreOutputs(x, d, cache_.type, const_cast<void*>(CacheData(at + (cache_.past + n % in_.count) * d)));
  }

  // The task is a head of a token.
  void Attend(size_t layer, size_t task) {
    const DecoderLayer& l = decoder_.layers_[layer];
    const size_t n = task / s_.heads, head = task % s_.heads, d = s_.head_dim, row = n / in_.count;
    const size_t end = cache_.past + n % in_.count + 1, kv = head / (s_.heads / s_.kv_heads);
    size_t begin = l.window != 0 && end > l.window ? end - l.window : 0;
    if (in_.starts) begin = std::min(std::max(begin, size_t(in_.starts[row])), end - 1);
    float* scores = Own().scores.Get<float>((end + kRowMultiple - 1) / kRowMultiple * kRowMultiple);
    AttendHead(cache_.type, qkv_.data() + n * qkv_width_ + head * d,
               CacheData(CacheAt(layer, false, row, kv) + begin * d),
               CacheData(CacheAt(layer, true, row, kv) + begin * d), end - begin, d, s_.scale, scores,
               attended_.data() + n * q_width_ + head * d);
  }

  // ---- few tokens: all layers in one go of a team; a product and what follows it are one loop ----

  RowsView Rows(const float* x, size_t width, size_t stride) const {
    return {FormatId::kF32, x, tokens_, width, ptrdiff_t(stride * sizeof(float))};
  }
  void TakeNormed(const void* w) {
    float* norm = Own().norm.Get<float>(tokens_ * s_.hidden);
    NormRows(w, norm);
    Own().input.Quantize(Rows(norm, s_.hidden, s_.hidden), s_.compute);
  }
  // (tokens, 16) results of the 16 rows from row `first` of w on.
  static void Multiply(const PanelRows& w, size_t first, float* sums) {
    Own().input.Multiply(*w.panel, (w.first + first) / kPanelRows, sums);
  }

  // Adds a product to x, normed if it has a norm. `prepare` quantizes what is multiplied.
  template <class Prepare>
  void AddProduct(Team& team, const PanelRows& w, const void* bias, const void* norm, const Prepare& prepare) {
    const auto fitted = [&](size_t panel) {
      FewRows::Prefetch(*w.panel, w.first / kPanelRows + panel);
      prepare();
      Own().input.Fit(*w.panel);
    };
    team.ForRanges(s_.hidden / kPanelRows, fitted, [&](size_t panel) {
      alignas(64) float sums[FewRows::kMaxRows * kPanelRows];
      Multiply(w, panel * kPanelRows, sums);
      for (size_t n = 0; n < tokens_; ++n) {
        float* y = sums + n * kPanelRows;
        AddBias(y, bias, panel * kPanelRows, kPanelRows);
        const size_t at = n * s_.hidden + panel * kPanelRows;
        if (norm) std::copy_n(y, kPanelRows, out_.data() + at);
        else AddRow(x_ + at, FormatId::kF32, y, kPanelRows);
      }
    });
    if (norm) team.ForRanges(1, [](size_t) {}, [&](size_t) { AddOut(norm); });
  }

  // Where a head of queries, keys or values (in this order) has its weights: rows from `first` on.
  struct HeadWeights {
    const PanelRows& w;
    const void* bias;
    size_t first;
  };
  HeadWeights WeightsOf(const DecoderLayer& l, size_t head) const {
    const size_t d = s_.head_dim;
    if (head < s_.heads) return {l.query, l.query_bias, head * d};
    if (head < s_.heads + s_.kv_heads) return {l.key, l.key_bias, (head - s_.heads) * d};
    return {l.value, l.value_bias, (head - s_.heads - s_.kv_heads) * d};
  }

  void LayerOfFew(Team& team, size_t layer) {
    const DecoderLayer& l = decoder_.layers_[layer];
    const size_t d = s_.head_dim, inner = Width(l.down);
    const auto take_heads = [&](size_t head) {
      const HeadWeights h = WeightsOf(l, head);
      FewRows::Prefetch(*h.w.panel, (h.w.first + h.first) / kPanelRows);
      TakeNormed(l.input_norm);
    };
    team.ForRanges(s_.heads + 2 * s_.kv_heads, take_heads, [&](size_t head) {
      const HeadWeights h = WeightsOf(l, head);
      Own().input.Fit(*h.w.panel);
      alignas(64) float sums[FewRows::kMaxRows * kPanelRows];
      for (size_t i = 0; i < d; i += kPanelRows) {
        Multiply(h.w, h.first + i, sums);
        for (size_t n = 0; n < tokens_; ++n) {
          float* y = sums + n * kPanelRows;
          AddBias(y, h.bias, h.first + i, kPanelRows);
          std::copy_n(y, kPanelRows, qkv_.data() + n * qkv_width_ + head * d + i);
        }
      }
      for (size_t n = 0; n < tokens_; ++n) FinishHead(layer, n, head);
    });
    team.ForRanges(tokens_ * s_.heads, [](size_t) {}, [&](size_t task) { Attend(layer, task); });
    AddProduct(team, l.output, l.output_bias, l.attention_norm,
               [&] { Own().input.Quantize(Rows(attended_.data(), q_width_, q_width_), s_.compute); });
    const auto take_post = [&](size_t panel) {
      FewRows::Prefetch(*l.gate.panel, l.gate.first / kPanelRows + panel);
      FewRows::Prefetch(*l.up.panel, l.up.first / kPanelRows + panel);
      TakeNormed(l.post_norm);
    };
    team.ForRanges(inner / kPanelRows, take_post, [&](size_t panel) {
      alignas(64) float gate[FewRows::kMaxRows * kPanelRows], up[FewRows::kMaxRows * kPanelRows];
      Own().input.Fit(*l.gate.panel);
      Multiply(l.gate, panel * kPanelRows, gate);
      Own().input.Fit(*l.up.panel);
      Multiply(l.up, panel * kPanelRows, up);
      GateRow(gate_, gate, up, tokens_ * kPanelRows);
      for (size_t n = 0; n < tokens_; ++n)
        std::copy_n(gate + n * kPanelRows, kPanelRows, inner_.data() + n * inner + panel * kPanelRows);
    });
    AddProduct(team, l.down, nullptr, l.feed_norm,
               [&] { Own().input.Quantize(Rows(inner_.data(), inner, inner), s_.compute); });
  }

  // ---- many tokens: products are what takes time ----

  // Into rows `stride` apart; a matrix that is not the first of its panel came with that.
  void Product(const PanelRows& w, const RowsView& x, float* y, size_t stride, const void* bias) const {
    if (w.first != 0) return;
    Matmul(x, *w.panel, {FormatId::kF32, y, tokens_, w.panel->rows, ptrdiff_t(stride * sizeof(float))}, s_.compute);
    for (size_t n = 0; n < tokens_; ++n) AddBias(y + n * stride, bias, 0, w.panel->rows);
  }
  template <class Task>
  static void ForTasks(size_t n, const Task& task) {
    ParallelFor(n, std::max<size_t>(1, n / 64), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) task(i);
    });
  }

  void LayerOfMany(size_t layer) {
    const DecoderLayer& l = decoder_.layers_[layer];
    const size_t inner = Width(l.down), heads = s_.heads + 2 * s_.kv_heads, hidden = s_.hidden;
    const RowsView normed = Rows(norm_.data(), hidden, hidden);
    NormRows(l.input_norm, norm_.data());
    Product(l.query, normed, qkv_.data(), qkv_width_, l.query_bias);
    Product(l.key, normed, qkv_.data() + q_width_, qkv_width_, l.key_bias);
    Product(l.value, normed, qkv_.data() + q_width_ + kv_width_, qkv_width_, l.value_bias);
    ForTasks(tokens_ * heads, [&](size_t i) { FinishHead(layer, i / heads, i % heads); });
    ForTasks(tokens_ * s_.heads, [&](size_t task) { Attend(layer, task); });
    Product(l.output, Rows(attended_.data(), q_width_, q_width_), out_.data(), hidden, l.output_bias);
    AddOut(l.attention_norm);
    NormRows(l.post_norm, norm_.data());
    Product(l.gate, normed, inner_.data(), 2 * inner, nullptr);
    Product(l.up, normed, inner_.data() + inner, 2 * inner, nullptr);
    ForTasks(tokens_, [&](size_t n) {
      float* gate = inner_.data() + n * 2 * inner;
      GateRow(gate_, gate, gate + inner, inner);
    });
    Product(l.down, Rows(inner_.data(), inner, 2 * inner), out_.data(), hidden, nullptr);
    AddOut(l.feed_norm);
  }

  const Decoder& decoder_;
  const DecoderShape& s_;
  const Gate gate_ = s_.gelu ? Gate::kGelu : Gate::kSilu;
  const DecoderTokens& in_;
  const std::vector<Rotation>& rotations_;
  const DecoderCache& cache_;
  float* x_;
  const size_t tokens_, q_width_, kv_width_, qkv_width_;
  std::vector<float> qkv_, attended_, inner_, out_, norm_;
};

void Decoder::Step(float* x, const DecoderTokens& tokens, const std::vector<Rotation>& rotations,
                   const DecoderCache& cache) const {
  if (tokens.rows == 0 || tokens.count == 0) return;
  if (cache.past + tokens.count > cache.capacity)
    Fail("the cache holds ", cache.capacity, " positions, of which ", cache.past, " are taken");
  for (const DecoderLayer& l : layers_)
    if (l.rotation >= rotations.size()) Fail("a layer needs table ", l.rotation, " of rotations");
  // A short text is faster in a few goes of few tokens than in one of many.
  const size_t few = size_t(kMaxGemvRows / DigitsOf(shape_.compute));
  const size_t at_once = tokens.rows == 1 && tokens.count <= kGoes * few ? few : tokens.count;
  for (size_t done = 0; done < tokens.count; done += at_once) {
    const size_t count = std::min(at_once, tokens.count - done);
    const DecoderTokens some = {tokens.rows, count, tokens.positions + done, tokens.starts};
    const DecoderCache so_far = {cache.type, cache.data, cache.capacity, cache.past + done};
    DecoderStep(*this, x + done * shape_.hidden, some, rotations, so_far).Run();
  }
}

}  // namespace edgequant
