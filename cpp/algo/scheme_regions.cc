// Groups of several rows.
#include <algorithm>
#include <cmath>

#include "algo/scheme_encoder.h"
#include "core/threads.h"

namespace edgequant {
namespace {

constexpr size_t kTask = 1 << 15;    // weights of one task
constexpr size_t kSample = 1 << 18;  // weights of a larger group that the search looks at

struct Region { size_t row, rows, col, cols; };

// All weights of the region row by row, or an even sample of them with the extreme ones.
void GatherRegion(const Encoder& e, const Region& g, std::vector<float>& x, std::vector<float>& w) {
  const size_t step = std::max<size_t>(1, g.rows * g.cols / kSample);
  const auto row = [&](size_t r) { return e.x + (g.row + r) * e.cols + g.col; };
  const auto take = [&](size_t r, size_t c) {
    x.push_back(row(r)[c]);
    if (e.importance) w.push_back(e.importance[g.col + c]);
  };
  x.reserve(g.rows * g.cols / step + 3);
  for (size_t r = 0, c = 0; r < g.rows; ++r, c -= g.cols)
    for (; c < g.cols; c += step) take(r, c);
  if (step == 1) return;
  size_t lowest = 0, highest = 0;
  GroupRange all = RangeOf(row(0), g.cols);
  for (size_t r = 1; r < g.rows; ++r) {
    const GroupRange range = RangeOf(row(r), g.cols);
    if (range.low < all.low) all.low = range.low, lowest = r;
    if (range.high > all.high) all.high = range.high, highest = r;
  }
  take(lowest, size_t(std::find(row(lowest), row(lowest) + g.cols, all.low) - row(lowest)));
  take(highest, size_t(std::find(row(highest), row(highest) + g.cols, all.high) - row(highest)));
}

// The sum of magnitudes, in eight parts that the compiler keeps in vectors.
double SumOfMagnitudes(const float* x, size_t n) {
  double parts[8] = {}, sum = 0;
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t k = 0; k < 8; ++k) parts[k] += double(std::abs(x[i + k]));
  for (; i < n; ++i) sum += double(std::abs(x[i]));
  for (const double part : parts) sum += part;
  return sum;
}

// The ranges of all regions, band after band, found row by row on all threads.
std::vector<GroupRange> RangesOfRegions(const Encoder& e) {
  const size_t groups = e.groups(), rows = e.s.GroupRows(e.rows), bands = e.s.ScaleRows(e.rows);
  const bool mean = e.s.rule == Rule::kAbsMean;
  std::vector<GroupRange> of_rows(e.rows * groups), all(bands * groups, {INFINITY, -INFINITY, 0, 0});
  std::vector<double> sums(mean ? e.rows * groups : 0);
  ParallelFor(e.rows, std::max<size_t>(1, kTask / e.cols), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r)
      for (size_t g = 0; g < groups; ++g) {
        const float* const x = e.x + r * e.cols + g * e.group();
        const size_t n = std::min(e.group(), e.cols - g * e.group());
        uint32_t largest;
        of_rows[r * groups + g] = RangeOf(x, n, &largest);
        CheckMagnitudes(e, r, 1, largest);
        if (mean) sums[r * groups + g] = SumOfMagnitudes(x, n);
      }
  });
  for (size_t k = 0; k < bands * groups; ++k) {
    const size_t first = k / groups * rows, count = std::min(rows, e.rows - first), g = k % groups;
    double sum = 0;
    for (size_t r = first; r < first + count; ++r) {
      const GroupRange& range = of_rows[r * groups + g];
      all[k].low = std::min(all[k].low, range.low);
      all[k].high = std::max(all[k].high, range.high);
      if (std::abs(range.extreme) > std::abs(all[k].extreme)) all[k].extreme = range.extreme;
      if (mean) sum += sums[r * groups + g];
    }
    all[k].mean_magnitude = float(sum / double(count * std::min(e.group(), e.cols - g * e.group())));
  }
  return all;
}

double RegionError(const Encoder& e, const Region& g, float scale, float shift) {
  const float zero = e.s.zeros == Zero::kInteger || e.s.zeros == Zero::kFloat ? shift - e.s.zero : 0;
  const float minimum = e.s.zeros == Zero::kMinimum ? shift : 0;
  std::vector<double> sums(g.rows);  // each in four parts, which do not wait for one another
  ParallelFor(g.rows, std::max<size_t>(1, kTask / g.cols), [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(g.cols);
    for (size_t r = begin; r < end; ++r) {
      const float* const x = e.x + (g.row + r) * e.cols + g.col;
      ChooseCodes(e.search, x, g.cols, scale, shift, codes.data());
      double parts[4] = {};
      const auto add = [&](size_t c, double& part) {
        const float gap = x[c] - ((e.values.value[codes[c]] - zero) * scale + minimum);
        part += double(e.importance ? e.importance[g.col + c] : 1) * double(gap) * double(gap);
      };
      size_t c = 0;
      for (; c + 4 <= g.cols; c += 4)
        for (size_t k = 0; k < 4; ++k) add(c + k, parts[k]);
      for (; c < g.cols; ++c) add(c, parts[0]);
      sums[r] = (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }
  });
  double sum = 0;
  for (const double v : sums) sum += v;
  return sum;
}

}  // namespace

void EncodeRegions(const Encoder& e, SchemeWriter& out) {
  const Scheme& s = e.s;
  const size_t groups = e.groups(), rows = s.GroupRows(e.rows), bands = s.ScaleRows(e.rows);
  std::vector<float> scale(bands * groups), shift(bands * groups);
  std::vector<GroupScale> rule(bands * groups);
  const std::vector<GroupRange> ranges = RangesOfRegions(e);
  ParallelFor(bands * groups, 1, [&](size_t begin, size_t end) {
    for (size_t k = begin; k < end; ++k) {
      const size_t row = k / groups * rows, col = k % groups * e.group();
      const Region g = {row, std::min(rows, e.rows - row), col, std::min(e.group(), e.cols - col)};
      rule[k] = ScaleByRule(e.search, ranges[k]);
      scale[k] = rule[k].scale;
      shift[k] = rule[k].shift;
      if (e.rule) continue;
      std::vector<float> x, w;
      float found = 0, found_shift = 0;
      GatherRegion(e, g, x, w);
      SearchGroup(e.search, x.data(), w.empty() ? nullptr : w.data(), x.size(), &found, &found_shift);
      if (RegionError(e, g, found, found_shift) < RegionError(e, g, scale[k], shift[k]))
        scale[k] = found, shift[k] = found_shift;
    }
  });
  for (size_t b = 0; b < bands; ++b) out.PutScales(b, &scale[b * groups], &shift[b * groups]);
  out.ForRuns(kTask / e.cols, [&](size_t begin, size_t end) {
    SchemeWriter::Run run(out);
    std::vector<uint8_t> codes(out.code_cols());
    for (size_t r = begin; r < end; ++r) {
      const float* const x = e.x + r * e.cols;
      const size_t band = r / rows * groups;
      if (e.rule) CodesByRule(e.search, &rule[band], x, e.cols, codes.data());
      else CodeRow(e, x, &scale[band], &shift[band], codes.data());
      std::fill(codes.begin() + ptrdiff_t(e.cols), codes.end(), uint8_t{0});
      run.Put(r, codes.data(), 1);
    }
  });
}

}  // namespace edgequant
