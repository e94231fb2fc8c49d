// Codes that stand for several weights, and groups with tables of their own.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "algo/kmeans.h"
#include "algo/scheme_encoder.h"
#include "core/threads.h"
#include "format/cell.h"
#include "kernels/cpu/codebook.h"
#include "kernels/cpu/group_levels.h"

namespace edgequant {
namespace {

// Sums of a group for given codes: of weight * value^2 and weight * value * x. Four chains, which dims of 2 to 8 fill.
struct VectorSums { float ll = 0, xl = 0; };

template <size_t kDim, bool kWeights>
VectorSums SumVectors(const float* x, const float* w, const uint8_t* codes, size_t n, const float* rows) {
  constexpr size_t kChains = kDim < 4 ? 4 : kDim;
  float ll[kChains] = {}, xl[kChains] = {};
  for (size_t i = 0; i < n / kChains * kChains; i += kChains)
    for (size_t j = 0; j < kChains; ++j) {
      const float v = rows[codes[(i + j) / kDim] * kDim + j % kDim], wv = kWeights ? w[i + j] * v : v;
      ll[j] += wv * v;
      xl[j] += wv * x[i + j];
    }
  for (size_t i = n / kChains * kChains; i < n; ++i) {
    const float v = rows[codes[i / kDim] * kDim + i % kDim], wv = kWeights ? w[i] * v : v;
    ll[0] += wv * v;
    xl[0] += wv * x[i];
  }
  VectorSums sums;
  for (size_t j = 0; j < kChains; ++j) sums.ll += ll[j], sums.xl += xl[j];
  return sums;
}

VectorSums SumVectors(const float* x, const float* w, const uint8_t* codes, size_t n, size_t dim, const float* rows) {
  if (dim == 2) return w ? SumVectors<2, true>(x, w, codes, n, rows) : SumVectors<2, false>(x, w, codes, n, rows);
  if (dim == 4) return w ? SumVectors<4, true>(x, w, codes, n, rows) : SumVectors<4, false>(x, w, codes, n, rows);
  return w ? SumVectors<8, true>(x, w, codes, n, rows) : SumVectors<8, false>(x, w, codes, n, rows);
}

// The first scales tried: those at which the weights' mean square is this multiple of the codebook's.
std::vector<float> StartsOf(Effort effort) {
  if (effort == Effort::kFast) return {1.1f};
  if (effort == Effort::kDefault) return {1.2f, 1.0f, 0.8f};
  return {1.6f, 1.4f, 1.25f, 1.1f, 1.0f, 0.9f, 0.8f, 0.7f, 0.6f};
}

class VectorRow {
 public:
  VectorRow(const Encoder& e, const float* x)
      : e_(e), x_(x), groups_(e.groups()), u_(e.cols), codes_(e.cols / size_t(e.s.dim)), best_(groups_), gain_(groups_, -INFINITY) {}

  void Run(float* scale, uint8_t* codes) {
    std::vector<float> trial(groups_, 1.0f);
    if (!e_.s.scale.present()) return Try(trial, scale, codes);
    double book = 0;
    for (float v : e_.table) book += double(v) * double(v);
    book = std::sqrt(book / double(e_.table.size()));
    std::vector<float> root(groups_);
    for (size_t g = 0; g < groups_; ++g) {
      double sum = 0;
      for (size_t i = Begin(g); i < End(g); ++i) sum += double(x_[i]) * double(x_[i]);
      root[g] = book > 0 ? float(std::sqrt(sum / double(End(g) - Begin(g))) / book) : 0;
    }
    for (float start : StartsOf(e_.effort)) {
      for (size_t g = 0; g < groups_; ++g) trial[g] = AsStored(e_.s.scale.cell, start * root[g]);
      Try(trial, scale, codes);
    }
    const int rounds = e_.effort == Effort::kFast ? 1 : e_.effort == Effort::kDefault ? 2 : 6;
    for (int round = 0; round < rounds; ++round) {  // the scale that fits the best codes so far, and codes for it
      for (size_t g = 0; g < groups_; ++g) {
        trial[g] = best_[g].ll > 0 ? best_[g].xl / best_[g].ll : scale[g];
        if (!e_.s.negative_scale) trial[g] = std::max(trial[g], 0.0f);
        trial[g] = AsStored(e_.s.scale.cell, trial[g]);
      }
      Try(trial, scale, codes);
    }
  }

 private:
  size_t Begin(size_t g) const { return g * e_.group(); }
  size_t End(size_t g) const { return std::min(e_.cols, (g + 1) * e_.group()); }
  // Codes for these scales; kept for groups where more of the squared error goes away than for any so far.
  void Try(const std::vector<float>& trial, float* scale, uint8_t* codes) {
    const size_t dim = size_t(e_.s.dim);
    for (size_t g = 0; g < groups_; ++g) {
      const float inverse = std::abs(trial[g]) > 1e-37f ? 1 / trial[g] : 0;
      for (size_t i = Begin(g); i < End(g); ++i) u_[i] = x_[i] * inverse;
    }
    NearestRows(u_.data(), e_.importance, codes_.size(), e_.s.dim, e_.table.data(), e_.s.codes, codes_.data());
    for (size_t g = 0; g < groups_; ++g) {
      const size_t first = Begin(g), n = End(g) - first;
      const uint8_t* const found = &codes_[first / dim];
      const VectorSums sums = SumVectors(x_ + first, e_.importance ? e_.importance + first : nullptr, found, n, dim, e_.table.data());
      const double gain = double(trial[g]) * (2 * double(sums.xl) - double(trial[g]) * double(sums.ll));
      if (!(gain > gain_[g])) continue;
      gain_[g] = gain;
      best_[g] = sums;
      scale[g] = trial[g];
      std::copy_n(found, n / dim, codes + first / dim);
    }
  }

  const Encoder& e_;
  const float* x_;
  size_t groups_;
  std::vector<float> u_;
  std::vector<uint8_t> codes_;
  std::vector<VectorSums> best_;
  std::vector<double> gain_;
};

}  // namespace

void EncodeVectorRow(const Encoder& e, const float* x, float* scale, uint8_t* codes) { VectorRow(e, x).Run(scale, codes); }

void EncodeVectors(const Encoder& e, SchemeWriter& out) {
  ParallelFor(e.rows, 1, [&](size_t begin, size_t end) {
    std::vector<float> scale(e.groups());
    std::vector<uint8_t> codes(out.code_cols());
    for (size_t r = begin; r < end; ++r) {
      CheckMagnitudes(e, r, 1);
      EncodeVectorRow(e, e.x + r * e.cols, scale.data(), codes.data());
      out.PutCodes(r, codes.data());
      if (e.s.scale.present()) out.PutNumbers(Part::kScale, r, scale.data());
    }
  });
}

namespace {

// Levels of the groups of one row, one group after the other.
class RowLevels {
 public:
  explicit RowLevels(const Encoder& e) : e_(e), k_(size_t(e.s.codes)), sorted_(e.group()), weight_(e.group()), order_(e.group()) {}

  void Run(const float* x, float* levels) {
    const size_t n = e_.group();
    if (k_ <= kMostGroupLevels && n <= kMostGroupWeights && e_.cols % n == 0)
      return BestGroupLevels(x, e_.importance, e_.groups(), n, int(k_), levels);
    for (size_t g = 0; g < e_.groups(); ++g) {
      const size_t first = g * n, count = std::min(n, e_.cols - first);
      std::iota(order_.begin(), order_.begin() + ptrdiff_t(count), first);
      std::sort(order_.begin(), order_.begin() + ptrdiff_t(count), [&](size_t a, size_t b) { return x[a] < x[b]; });
      for (size_t i = 0; i < count; ++i) {
        sorted_[i] = x[order_[i]];
        if (e_.importance) weight_[i] = e_.importance[order_[i]];
      }
      const std::vector<float> found = BestLevels(sorted_.data(), e_.importance ? weight_.data() : nullptr, count, int(k_));
      std::copy(found.begin(), found.end(), levels + g * k_);
    }
  }

 private:
  const Encoder& e_;
  size_t k_;
  std::vector<float> sorted_, weight_;
  std::vector<size_t> order_;
};

}  // namespace

void EncodeGroupTables(const Encoder& e, SchemeWriter& out) {
  const size_t groups = e.groups(), k = size_t(e.s.codes);
  ParallelFor(e.rows, 1, [&](size_t begin, size_t end) {
    RowLevels best(e);
    std::vector<float> tables(groups * k);
    std::vector<uint8_t> codes(out.code_cols());
    for (size_t r = begin; r < end; ++r) {
      CheckMagnitudes(e, r, 1);
      const float* const row = e.x + r * e.cols;
      best.Run(row, tables.data());
      for (float& v : tables) v = AsStored(e.s.entries.cell, v);
      for (size_t g = 0; g < groups; ++g) {
        const size_t first = g * e.group(), n = std::min(e.group(), e.cols - first);
        const float *const x = row + first, *const levels = &tables[g * k];
        uint8_t* const code = &codes[first];
        std::fill_n(code, n, uint8_t{0});
        for (size_t level = 1; level < k; ++level) {
          const float limit = levels[level - 1] / 2 + levels[level] / 2;
          for (size_t i = 0; i < n; ++i) code[i] = uint8_t(code[i] + (x[i] > limit));
        }
      }
      out.PutCodes(r, codes.data());
      out.PutNumbers(Part::kEntries, r, tables.data());
    }
  });
}

}  // namespace edgequant
