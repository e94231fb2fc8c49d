// Codes that stand for several weights, and groups with tables of their own.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "algo/kmeans.h"
#include "algo/scheme_encoder.h"
#include "core/threads.h"
#include "format/cell.h"
#include "kernels/cpu/codebook.h"

namespace edgequant {
namespace {

// Sums of a group for given codes: of weight * value^2 and weight * value * x.
struct VectorSums { double ll = 0, xl = 0; };

// The first scales tried: those at which the largest weight is this multiple of the codebook's largest number.
std::vector<float> StartsOf(Effort effort) {
  if (effort == Effort::kFast) return {1.0f, 0.7f, 0.45f};
  if (effort == Effort::kDefault) return {1.05f, 0.85f, 0.65f, 0.45f};
  std::vector<float> starts;
  for (float t = 1.4f; t > 0.25f; t *= 0.87f) starts.push_back(t);
  return starts;
}

class VectorRow {
 public:
  VectorRow(const Encoder& e, const float* x)
      : e_(e), x_(x), groups_(e.groups()), u_(e.cols), codes_(e.cols / size_t(e.s.dim)) {}

  void Run(float* scale, uint8_t* codes) {
    const bool scaled = e_.s.scale.present();
    std::vector<double> least(groups_, INFINITY);
    std::vector<float> trial(groups_, 1.0f);
    if (!scaled) {
      Try(trial, least, scale, codes);
      return;
    }
    float most = 0;
    for (float v : e_.table) most = std::max(most, std::abs(v));
    for (float start : StartsOf(e_.effort)) {
      for (size_t g = 0; g < groups_; ++g) {
        float largest = 0;
        for (size_t i = Begin(g); i < End(g); ++i) largest = std::max(largest, std::abs(x_[i]));
        trial[g] = AsStored(e_.s.scale.cell, most > 0 ? start * largest / most : 0);
      }
      Try(trial, least, scale, codes);
    }
    const int rounds = e_.effort == Effort::kFast ? 1 : e_.effort == Effort::kDefault ? 2 : 6;
    for (int round = 0; round < rounds; ++round) {  // the scale that fits the best codes so far, and codes for it
      for (size_t g = 0; g < groups_; ++g) {
        const VectorSums sums = SumsOf(g, codes);
        trial[g] = sums.ll > 0 ? float(sums.xl / sums.ll) : scale[g];
        if (!e_.s.negative_scale) trial[g] = std::max(trial[g], 0.0f);
        trial[g] = AsStored(e_.s.scale.cell, trial[g]);
      }
      Try(trial, least, scale, codes);
    }
  }

 private:
  size_t Begin(size_t g) const { return g * e_.group(); }
  size_t End(size_t g) const { return std::min(e_.cols, (g + 1) * e_.group()); }
  float WeightAt(size_t i) const { return e_.importance ? e_.importance[i] : 1; }
  float ValueAt(size_t i, const uint8_t* codes) const {
    const size_t dim = size_t(e_.s.dim);
    return e_.table[codes[i / dim] * dim + i % dim];
  }
  VectorSums SumsOf(size_t g, const uint8_t* codes) const {
    VectorSums sums;
    for (size_t i = Begin(g); i < End(g); ++i) {
      const float v = ValueAt(i, codes), wv = WeightAt(i) * v;
      sums.ll += double(wv) * double(v);
      sums.xl += double(wv) * double(x_[i]);
    }
    return sums;
  }
  // Codes for these scales; groups with a lower error than the least so far are kept.
  void Try(const std::vector<float>& trial, std::vector<double>& least, float* scale, uint8_t* codes) {
    const size_t dim = size_t(e_.s.dim);
    for (size_t g = 0; g < groups_; ++g) {
      const float inverse = std::abs(trial[g]) > 1e-37f ? 1 / trial[g] : 0;
      for (size_t i = Begin(g); i < End(g); ++i) u_[i] = x_[i] * inverse;
    }
    NearestRows(u_.data(), e_.importance, codes_.size(), e_.s.dim, e_.table.data(), e_.s.codes, codes_.data());
    for (size_t g = 0; g < groups_; ++g) {
      double error = 0;
      for (size_t i = Begin(g); i < End(g); ++i) {
        const float gap = x_[i] - trial[g] * ValueAt(i, codes_.data());
        error += double(WeightAt(i)) * double(gap) * double(gap);
      }
      if (!(error < least[g])) continue;
      least[g] = error;
      scale[g] = trial[g];
      std::copy(codes_.begin() + ptrdiff_t(Begin(g) / dim), codes_.begin() + ptrdiff_t(End(g) / dim), codes + Begin(g) / dim);
    }
  }

  const Encoder& e_;
  const float* x_;
  size_t groups_;
  std::vector<float> u_;
  std::vector<uint8_t> codes_;
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

void EncodeGroupTables(const Encoder& e, SchemeWriter& out) {
  const size_t groups = e.groups(), k = size_t(e.s.codes);
  ParallelFor(e.rows, 1, [&](size_t begin, size_t end) {
    std::vector<float> tables(groups * k), sorted(e.group()), weight(e.group());
    std::vector<uint8_t> codes(out.code_cols());
    std::vector<size_t> order(e.group());
    for (size_t r = begin; r < end; ++r) {
      CheckMagnitudes(e, r, 1);
      for (size_t g = 0; g < groups; ++g) {
        const size_t first = g * e.group(), n = std::min(e.group(), e.cols - first);
        const float* const x = e.x + r * e.cols + first;
        if (e.importance) {
          std::iota(order.begin(), order.begin() + ptrdiff_t(n), size_t{0});
          std::sort(order.begin(), order.begin() + ptrdiff_t(n), [&](size_t a, size_t b) { return x[a] < x[b]; });
          for (size_t i = 0; i < n; ++i) sorted[i] = x[order[i]], weight[i] = e.importance[first + order[i]];
        } else {
          std::copy_n(x, n, sorted.begin());
          std::sort(sorted.begin(), sorted.begin() + ptrdiff_t(n));
        }
        std::vector<float> levels = BestLevels(sorted.data(), e.importance ? weight.data() : nullptr, n, int(k));
        for (float& v : levels) v = AsStored(e.s.entries.cell, v);
        std::copy(levels.begin(), levels.end(), tables.begin() + ptrdiff_t(g * k));
        std::fill_n(codes.begin() + ptrdiff_t(first), n, uint8_t{0});
        for (size_t level = 1; level < k; ++level) {
          const float limit = levels[level - 1] / 2 + levels[level] / 2;
          for (size_t i = 0; i < n; ++i) codes[first + i] = uint8_t(codes[first + i] + (x[i] > limit));
        }
      }
      out.PutCodes(r, codes.data());
      out.PutNumbers(Part::kEntries, r, tables.data());
    }
  });
}

}  // namespace edgequant
