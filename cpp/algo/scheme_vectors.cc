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

constexpr size_t kTask = 1 << 15;  // weights of one task

// Sums of a group for given codes: of weight * value^2 and weight * value * x. Four chains, which dims of 2 to 8 fill.
struct VectorSums { double ll = 0, xl = 0; };

template <size_t kDim, bool kWeights>
VectorSums SumVectors(const float* x, const float* w, const uint16_t* codes, size_t n, const float* rows) {
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
  for (size_t j = 0; j < kChains; ++j) sums.ll += double(ll[j]), sums.xl += double(xl[j]);
  return sums;
}

VectorSums SumVectors(const float* x, const float* w, const uint16_t* codes, size_t n, size_t dim, const float* rows) {
  if (dim == 2) return w ? SumVectors<2, true>(x, w, codes, n, rows) : SumVectors<2, false>(x, w, codes, n, rows);
  if (dim == 4) return w ? SumVectors<4, true>(x, w, codes, n, rows) : SumVectors<4, false>(x, w, codes, n, rows);
  return w ? SumVectors<8, true>(x, w, codes, n, rows) : SumVectors<8, false>(x, w, codes, n, rows);
}

// The first scales tried: those at which the weights' mean square is this multiple of the codebook's.
std::vector<float> StartsOf(Effort effort, bool coarse) {
  if (coarse && effort != Effort::kBest) return {1.4f, 1.0f, 0.7f};
  if (effort == Effort::kFast) return {1.1f};
  if (effort == Effort::kDefault) return {1.2f, 0.9f};
  return {1.6f, 1.4f, 1.2f, 1.1f, 1.0f, 0.9f, 0.8f, 0.7f, 0.6f};
}

}  // namespace

VectorRow::VectorRow(const Encoder& e)
    : e_(e), groups_(e.groups()), rough_(e.table.data(), size_t(e.s.codes), e.s.dim),
      // where codes have few bits, a row that is nearly the nearest does as well
      roughly_(!e.importance && rough_.usable && e.effort != Effort::kBest && e.s.bits <= 3 * e.s.dim), u_(e.cols),
      distance_(e.cols / size_t(e.s.dim)), best_(groups_), gain_(groups_), trial_(groups_),
      coarse_(e.s.scale.present() && CellBits(e.s.scale.cell) == 8), starts_(StartsOf(e.effort, coarse_)) {
  double sum = 0;
  for (float v : e.table) sum += double(v) * double(v);
  const double root = std::sqrt(sum / double(e.table.size()));
  inverse_root_ = root > 0 ? 1 / root : 0;
}

void VectorRow::Run(const float* x, float* scale, uint16_t* codes) {
  if (e_.s.scale.present()) FindScales(x, scale, codes);
  else std::fill_n(scale, groups_, 1.0f);
  Divide(x, scale);
  NearestRows(u_.data(), e_.importance, distance_.size(), e_.s.dim, e_.table.data(), size_t(e_.s.codes), codes);
  if (e_.s.scale.present()) Refit(x, codes, scale);
}

// The scales that fit these codes best, where they are better as stored.
void VectorRow::Refit(const float* x, const uint16_t* codes, float* scale) const {
  const float* const w = e_.importance;
  for (size_t g = 0; g < groups_; ++g) {
    const size_t first = Begin(g), n = End(g) - first, dim = size_t(e_.s.dim);
    const VectorSums sums =
        SumVectors(x + first, w ? w + first : nullptr, codes + first / dim, n, dim, e_.table.data());
    const float fit = Stored(sums.ll > 0 ? float(sums.xl / sums.ll) : 0);
    const auto gain = [&](float s) { return double(s) * (2 * sums.xl - double(s) * sums.ll); };
    if (gain(fit) > gain(scale[g])) scale[g] = fit;
  }
}

void VectorRow::FindScales(const float* x, float* scale, uint16_t* codes) {
  std::vector<float> root(groups_);
  for (size_t g = 0; g < groups_; ++g) {
    double sum[4] = {};
    for (size_t i = Begin(g); i < End(g); ++i) sum[i % 4] += double(x[i]) * double(x[i]);
    root[g] = float(std::sqrt((sum[0] + sum[1] + sum[2] + sum[3]) / double(End(g) - Begin(g))) * inverse_root_);
  }
  std::fill(gain_.begin(), gain_.end(), -INFINITY);
  for (float start : starts_) {
    for (size_t g = 0; g < groups_; ++g) trial_[g] = AsStored(e_.s.scale.cell, start * root[g]);
    Try(x, scale, codes);
  }
  const int rounds = e_.effort == Effort::kFast ? 1 : e_.effort == Effort::kDefault ? 1 : 6;
  for (int round = 0; round < rounds; ++round) {  // the scale that fits the best codes so far
    for (size_t g = 0; g < groups_; ++g) {
      trial_[g] = Stored(best_[g].ll > 0 ? float(best_[g].xl / best_[g].ll) : scale[g]);
    }
    if (round + 1 < rounds || coarse_) Try(x, scale, codes);
    else std::copy(trial_.begin(), trial_.end(), scale);
  }
}

float VectorRow::Stored(float scale) const {
  return AsStored(e_.s.scale.cell, e_.s.negative_scale ? scale : std::max(scale, 0.0f));
}

// Weights over their scales.
void VectorRow::Divide(const float* x, const float* scale) {
  for (size_t g = 0; g < groups_; ++g) {
    const float inverse = std::abs(scale[g]) > 1e-37f ? 1 / scale[g] : 0;
    for (size_t i = Begin(g); i < End(g); ++i) u_[i] = x[i] * inverse;
  }
}

// Codes for the scales in trial_; what is kept of a group is of the trial after which the least of its squared error is
// left.
void VectorRow::Try(const float* x, float* scale, uint16_t* codes) {
  const size_t dim = size_t(e_.s.dim);
  Divide(x, trial_.data());
  if (roughly_) NearlyNearestRows(rough_, u_.data(), distance_.size(), codes, distance_.data());
  else NearestRows(u_.data(), e_.importance, distance_.size(), e_.s.dim, e_.table.data(), size_t(e_.s.codes), codes);
  for (size_t g = 0; g < groups_; ++g) {
    const size_t first = Begin(g), n = End(g) - first;
    const uint16_t* const found = codes + first / dim;
    const double by = double(trial_[g]);
    VectorSums sums;
    if (roughly_) {  // half of value^2 less value * u is the distance
      float half[4] = {}, distance[4] = {};
      const float* const of = &distance_[first / dim];
      size_t k = 0;
      for (; k + 4 <= n / dim; k += 4)
        for (size_t j = 0; j < 4; ++j) half[j] += rough_.halves[found[k + j]], distance[j] += of[k + j];
      for (; k < n / dim; ++k) half[0] += rough_.halves[found[k]], distance[0] += of[k];
      const double halves = double(half[0] + half[1] + (half[2] + half[3])),
                   all = double(distance[0] + distance[1] + (distance[2] + distance[3]));
      sums = {2 * halves, by * (halves - all)};
    } else {
      sums = SumVectors(x + first, e_.importance ? e_.importance + first : nullptr, found, n, dim, e_.table.data());
    }
    const double gain = by * (2 * sums.xl - by * sums.ll);
    if (!(gain > gain_[g])) continue;
    gain_[g] = gain;
    best_[g] = {sums.ll, sums.xl};
    scale[g] = trial_[g];
  }
}

void EncodeVectors(const Encoder& e, SchemeWriter& out) {
  out.ForRuns(kTask / e.cols, [&](size_t begin, size_t end) {
    VectorRow row(e);
    SchemeWriter::Run run(out);
    std::vector<float> scale(e.groups());
    std::vector<uint16_t> codes(e.cols / size_t(e.s.dim));
    std::vector<uint8_t> bytes(out.code_cols());
    CheckMagnitudes(e, begin, end - begin);
    for (size_t r = begin; r < end; ++r) {
      row.Run(e.x + r * e.cols, scale.data(), codes.data());
      SplitCodes(e.s, codes.data(), codes.size(), bytes.data());
      run.Put(r, bytes.data(), 1);
      if (e.s.scale.present()) out.PutNumbers(Part::kScale, r, scale.data());
    }
  });
}

namespace {

// Levels of the groups of one row, one group after the other.
class RowLevels {
 public:
  explicit RowLevels(const Encoder& e)
      : e_(e), k_(size_t(e.s.codes)), sorted_(e.group()), weight_(e.group()), order_(e.group()) {}

  void Run(const float* x, float* levels) {
    const size_t n = e_.group();
    if (k_ <= kMostGroupLevels && n <= kMostGroupWeights && e_.cols % n == 0)
      return BestGroupLevels(x, e_.importance, e_.groups(), n, int(k_), e_.effort != Effort::kBest, levels);
    for (size_t g = 0; g < e_.groups(); ++g) {
      const size_t first = g * n, count = std::min(n, e_.cols - first);
      std::iota(order_.begin(), order_.begin() + ptrdiff_t(count), first);
      std::sort(order_.begin(), order_.begin() + ptrdiff_t(count), [&](size_t a, size_t b) { return x[a] < x[b]; });
      for (size_t i = 0; i < count; ++i) {
        sorted_[i] = x[order_[i]];
        if (e_.importance) weight_[i] = e_.importance[order_[i]];
      }
      const std::vector<float> found =
          BestLevels(sorted_.data(), e_.importance ? weight_.data() : nullptr, count, int(k_));
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
  out.ForRuns(1, [&](size_t begin, size_t end) {
    RowLevels best(e);
    SchemeWriter::Run run(out);
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
      run.Put(r, codes.data(), 1);
      out.PutNumbers(Part::kEntries, r, tables.data());
    }
  });
}

}  // namespace edgequant
