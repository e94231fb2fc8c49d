#include "algo/e8p.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/threads.h"
#include "format/e8p.h"
#include "kernels/cpu/e8p_search.h"
#include "op/vectors.h"

namespace edgequant {
namespace {

constexpr size_t kTask = 2048;  // vectors per task

struct Fit {
  double xp = 0, pp = 0, xx = 0;  // weighted sums over weights x and points p
  double Error(double scale) const { return xx - 2 * scale * xp + scale * scale * pp; }
};

// Vectors of 8 weights; the weights of vector v are those of v % period.
struct Vectors {
  const float* x;
  size_t n;
  const float* weights;
  size_t period;
};

Fit Encode(const Vectors& q, float scale, uint16_t* codes) {
  std::vector<Fit> parts((q.n + kTask - 1) / kTask);  // the sum does not depend on the threads
  ParallelFor(q.n, kTask, [&](size_t begin, size_t end) {
    // Tasks begin anywhere in a row, so the weights of their vectors are brought in line.
    std::vector<float> w;
    if (q.weights) {
      w.resize((end - begin) * 8);
      for (size_t v = begin; v < end; ++v)
        for (size_t k = 0; k < 8; ++k) w[(v - begin) * 8 + k] = q.weights[v % q.period * 8 + k];
    }
    NearestE8P(q.x + begin * 8, end - begin, 1 / scale, q.weights ? w.data() : nullptr, end - begin, codes + begin);
    Fit f;
    const float* const points = E8PPoints();
    for (size_t v = begin; v < end; ++v) {
      const float *const x = q.x + v * 8, *const p = points + size_t{codes[v]} * 8;
      float xp = 0, pp = 0, xx = 0;
      for (size_t k = 0; k < 8; ++k) {
        const float weight = q.weights ? w[(v - begin) * 8 + k] : 1.0f;
        xp += weight * x[k] * p[k];
        pp += weight * p[k] * p[k];
        xx += weight * x[k] * x[k];
      }
      f.xp += double(xp);
      f.pp += double(pp);
      f.xx += double(xx);
    }
    parts[begin / kTask] = f;
  });
  Fit sum;
  for (const Fit& f : parts) {
    sum.xp += f.xp;
    sum.pp += f.pp;
    sum.xx += f.xx;
  }
  return sum;
}

float BestScale(const Fit& f, float scale) {
  const float best = f.pp > 0 ? float(f.xp / f.pp) : 0;
  return best > 0 && std::isfinite(best) ? best : scale;
}

// Every so many vectors of all, about `count`.
struct Sample {
  std::vector<float> x, weights;
  std::vector<uint16_t> codes;
  Vectors view;
  Sample(const Vectors& all, size_t count) {
    const size_t step = std::max<size_t>(1, all.n / count) | 1;  // odd, so that it does not walk down one column
    for (size_t v = 0; v < all.n; v += step)
      for (size_t k = 0; k < 8; ++k) {
        x.push_back(all.x[v * 8 + k]);
        if (all.weights) weights.push_back(all.weights[v % all.period * 8 + k]);
      }
    codes.resize(x.size() / 8);
    view = {x.data(), codes.size(), all.weights ? weights.data() : nullptr, codes.size()};
  }
};

float SearchScale(const Vectors& all, float start, size_t count) {
  Sample sample(all, count);
  float best = start;
  double least = -1;
  const auto consider = [&](float scale) {
    const Fit f = Encode(sample.view, scale, sample.codes.data());
    const float refit = BestScale(f, scale);
    const double error = f.Error(double(refit));
    if (least < 0 || error < least) least = error, best = refit;
  };
  for (const float factor : {0.75f, 0.875f, 1.0f, 1.125f, 1.25f, 1.4f, 1.6f}) consider(start * factor);
  for (float step = 0.06f; step > 0.01f; step /= 2) {
    const float centre = best;
    consider(centre * (1 - step));
    consider(centre * (1 + step));
  }
  return best;
}

}  // namespace

float EncodeE8P(const float* x, size_t rows, size_t cols, const float* importance, Effort effort, uint64_t* words) {
  if (rows % kE8PTileRows != 0 || cols % (8 * kE8PTileVectors) != 0)
    Fail("E8P stores tiles of 16 rows and 64 columns, which do not divide a matrix of ", rows, " x ", cols);
  const size_t n = rows * cols;
  double square = 0, sum = 0;
  for (size_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) Fail("the weight in row ", i / cols, ", column ", i % cols, " is not a number");
    const double w = importance ? double(importance[i % cols]) : 1.0;
    square += w * double(x[i]) * double(x[i]);
    sum += w;
  }
  const Vectors all{x, n / 8, importance, cols / 8};
  // 1 / 1.03 is best for Gaussian weights. A scale of 0 would lose the smallest codes.
  float scale = std::max(float(std::sqrt(square / std::max(sum, 1e-300)) / 1.03), 1e-30f);
  if (effort != Effort::kFast && square > 0) scale = SearchScale(all, scale, effort == Effort::kBest ? 65536 : 4096);
  std::vector<uint16_t> codes(n / 8), trial(effort == Effort::kBest ? n / 8 : 0);
  Fit f = Encode(all, scale, codes.data());
  float refit = BestScale(f, scale);
  for (int pass = 0; effort == Effort::kBest && pass < 3; ++pass) {
    const Fit g = Encode(all, refit, trial.data());
    const float next = BestScale(g, refit);
    if (!(g.Error(double(next)) < f.Error(double(refit)))) break;
    f = g;
    refit = next;
    codes.swap(trial);
  }
  PackE8P(codes.data(), rows, cols, words);
  return refit;
}

}  // namespace edgequant
