// Scales over a second level, and groups of several rows.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "algo/scheme_encoder.h"
#include "algo/scheme_tuning.h"
#include "core/threads.h"
#include "format/cell.h"

namespace edgequant {
namespace {

constexpr size_t kTask = 1 << 15;
constexpr size_t kSample = 1 << 18;  // weights of a larger group that the search looks at

// ---- The second level

// To the nearest whole number, below 2^22: without a call of the library.
float Rounded(float v) { return v + 12582912.0f - 12582912.0f; }

// Squared error of whole numbers, in units of the number that they are times; four sums, which the compiler keeps in one
// vector.
float ErrorOfWhole(const float* v, size_t n, float inverse, float low, float high) {
  float sums[4] = {};
  const auto square = [&](float x) {
    const float u = x * inverse, gap = Rounded(std::min(std::max(u, low), high)) - u;
    return gap * gap;
  };
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t k = 0; k < 4; ++k) sums[k] += square(v[i + k]);
  for (; i < n; ++i) sums[0] += square(v[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Numbers of one set of groups as elements times one number.
class LevelSearch {
 public:
  LevelSearch(const Scheme& s, const Plane& plane, const Plane& super, bool minimum) : s_(s), plane_(plane), super_(super) {
    integer_ = plane.cell == Cell::kInteger;
    zero_ = minimum ? 0 : float(s.sub_zero);
    high_ = integer_ ? float((1 << plane.bits) - 1) - zero_ : CellLimit(plane.cell);
    low_ = integer_ ? -zero_ : -high_;
    table_ = minimum || s.sub_table.empty() ? nullptr : &s.sub_table;
  }

  // The number of largest magnitude goes to the end of the elements, or a bit beyond; the least squared error counts.
  // In: n numbers. Out: what they are then, their elements, and the number of the set.
  float Run(float* v, size_t n, int candidates, float* element) const {
    float extreme = 0;
    for (size_t i = 0; i < n; ++i)
      if (std::abs(v[i]) > std::abs(extreme)) extreme = v[i];
    float best = 0;
    double least = INFINITY;
    const bool whole = integer_ && !table_;
    for (int k = 0; k < (whole ? candidates : 1); ++k)
      for (const float end : {high_, low_}) {
        if (whole ? end == 0 : end != high_) continue;
        float super = table_ ? std::abs(extreme) : std::abs(extreme) / end;
        if (whole) super = extreme / (k ? end * (1 - 0.3f * float(k - 1) / float(candidates)) + (end < 0 ? -0.4f : 0.4f) : end);
        super = s_.divides ? 1 / AsStored(super_.cell, super != 0 ? 1 / super : 1) : AsStored(super_.cell, super);
        const float inverse = std::abs(super) > 1e-37f ? 1 / super : 0;
        if (whole && inverse == 0) continue;
        const double error = whole ? double(ErrorOfWhole(v, n, inverse, low_, high_)) * double(super) * double(super) : 0;
        if (error < least) least = error, best = super;
      }
    const float inverse = std::abs(best) > 1e-37f ? 1 / best : 0;
    for (size_t i = 0; i < n; ++i) {
      const float u = v[i] * inverse;
      float value;
      if (table_) {
        size_t at = 0;
        for (size_t k = 1; k < table_->size(); ++k)
          if (std::abs((*table_)[k] - u) < std::abs((*table_)[at] - u)) at = k;
        element[i] = float(at);
        value = (*table_)[at];
      } else if (integer_) {
        value = Rounded(std::min(std::max(u, low_), high_));
        element[i] = value + zero_;
      } else {
        value = element[i] = AsStored(plane_.cell, u);
      }
      v[i] = value * best;
    }
    return best;
  }

 private:
  const Scheme& s_;
  const Plane &plane_, &super_;
  bool integer_;
  float zero_, high_, low_;
  const std::vector<float>* table_;
};

// Fits a second level to all numbers: set after set of `per` of them in rows of `row` (0: one set). Writes elements to
// `element`, what they are to `values`, and the numbers of the sets in order.
std::vector<float> FitLevel(const LevelSearch& search, size_t row, size_t per, int candidates, std::vector<float>& values,
                            std::vector<float>& element) {
  const size_t total = values.size(), length = row ? row : total, step = per ? per : length;
  const size_t sets_per_row = (length + step - 1) / step, rows = total / length;
  std::vector<float> super(rows * sets_per_row);
  element.resize(total);
  ParallelFor(super.size(), 64, [&](size_t begin, size_t end) {
    for (size_t k = begin; k < end; ++k) {
      const size_t first = k / sets_per_row * length + k % sets_per_row * step;
      const size_t n = std::min(step, length - k % sets_per_row * step);
      super[k] = search.Run(&values[first], n, candidates, &element[first]);
    }
  });
  return super;
}

void WriteLevel(const Encoder& e, SchemeWriter& out, Part part, const std::vector<float>& super) {
  const Grid2 grid = GridOf(e.s, part, e.rows, e.cols);
  std::vector<float> stored = super;
  if (e.s.divides && part == Part::kSuper)
    for (float& v : stored) v = v != 0 ? 1 / v : 1;
  for (size_t r = 0; r < grid.rows; ++r) out.PutNumbers(part, r, &stored[r * grid.cols]);
}

// Scales as the second level makes them, their elements, and the numbers of that level.
struct LeveledScales {
  std::vector<float> scale, element, super;
  float offset = 0;  // one number that all scales have in common
};

LeveledScales FitScales(const Encoder& e, std::vector<float> scale, bool offsets, size_t row, size_t per, int candidates) {
  const Scheme& s = e.s;
  LeveledScales out;
  if (offsets) {
    double sum = 0;
    for (float v : scale) sum += double(v);
    out.offset = AsStored(s.super_shift.cell, float(sum / double(scale.size())));
    for (float& v : scale) v -= out.offset;
  }
  out.super = FitLevel(LevelSearch(s, s.scale, s.super, false), row, per, candidates, scale, out.element);
  if (offsets)
    for (float& v : scale) v += out.offset;
  out.scale = std::move(scale);
  return out;
}

// Weighted squared error with the best codes for these scales of all groups, of a format without zeros.
double ErrorOfRows(const Encoder& e, const std::vector<float>& scale) {
  const size_t groups = e.groups();
  const std::vector<float> none(groups);
  std::vector<double> rows(e.rows);
  ParallelFor(e.rows, std::max<size_t>(1, kTask / e.cols), [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(e.s.CodeCols(e.cols));
    for (size_t r = begin; r < end; ++r) {
      const float* const x = e.x + r * e.cols;
      CodeRow(e, x, &scale[r * groups], none.data(), codes.data());
      for (size_t g = 0; g < groups; ++g) {
        const float of_group = scale[r * groups + g];
        const size_t first = g * e.group(), n = std::min(e.group(), e.cols - first);
        float sum = 0;
        for (size_t c = first; c < first + n; ++c) {
          const float gap = x[c] - e.values.value[codes[c]] * of_group;
          sum += (e.importance ? e.importance[c] : 1) * gap * gap;
        }
        rows[r] += double(sum);
      }
    }
  });
  return std::accumulate(rows.begin(), rows.end(), 0.0);
}

}  // namespace

void EncodeLevels(const Encoder& e, SchemeWriter& out) {
  const Scheme& s = e.s;
  const size_t groups = e.groups(), total = e.rows * groups, grain = std::max<size_t>(1, kTask / e.cols);
  const bool minima = s.zeros == Zero::kMinimum && s.super_shift.present();
  const int candidates = e.effort == Effort::kFast ? 4 : e.effort == Effort::kDefault ? 12 : 32;
  const size_t row = s.super_group == 0 || s.super.flat ? 0 : groups, per = size_t(s.super_group);
  SchemeSearch search = e.search;
  search.any_shift = minima;
  search.minimum_below_zero = minima;
  std::vector<float> scale(total), shift(total), element;
  ParallelFor(e.rows, grain, [&](size_t begin, size_t end) {
    CheckMagnitudes(e, begin, end - begin);
    std::vector<uint8_t> unused(e.cols);
    if (!e.rule) return FindRows(e, search, e.x + begin * e.cols, end - begin, &scale[begin * groups], &shift[begin * groups]);
    for (size_t r = begin; r < end; ++r)
      RuleRow(search, e.x + r * e.cols, e.cols, &scale[r * groups], &shift[r * groups], unused.data());
  });
  if (minima) {  // first the minima; what is left then has a scale only
    const std::vector<float> super = FitLevel(LevelSearch(s, s.shift, s.super_shift, true), row, per, candidates, shift, element);
    WriteLevel(e, out, Part::kSuperShift, super);
    for (size_t r = 0; r < e.rows; ++r) out.PutIntegers(Part::kShift, r, &element[r * groups]);
    Scheme rest = s;
    rest.zeros = Zero::kNone;
    rest.negative_scale = false;
    Encoder only(rest, e.x, e.rows, e.cols, e.importance, e.effort);
    only.UseTable(e.table);
    if (e.effort != Effort::kBest) only.tuning = SchemeTuningOf(rest, only.values, Effort::kFast);
    ParallelFor(e.rows, grain, [&](size_t begin, size_t end) {
      std::vector<float> x(e.x + begin * e.cols, e.x + end * e.cols), unused((end - begin) * groups);
      for (size_t r = begin, i = 0; r < end; ++r)
        for (size_t g = 0; g < groups; ++g)
          for (size_t k = 0; k < e.group() && g * e.group() + k < e.cols; ++k, ++i) x[i] -= shift[r * groups + g];
      FindRows(only, only.search, x.data(), end - begin, &scale[begin * groups], unused.data());
    });
  } else if (s.zeros != Zero::kNone) {
    for (size_t r = 0; r < e.rows; ++r) {
      if (s.shift.cell == Cell::kInteger) out.PutIntegers(Part::kShift, r, &shift[r * groups]);
      else out.PutNumbers(Part::kShift, r, &shift[r * groups]);
    }
  }
  const bool offsets = s.super_shift.present() && !minima;
  LeveledScales fitted = FitScales(e, std::move(scale), offsets, row, per, candidates);
  if (!e.rule && s.rule != Rule::kNone) {  // what is best for each group need not be so under the second level
    std::vector<float> by_rule(total), unused(total);
    ParallelFor(e.rows, grain, [&](size_t begin, size_t end) {
      std::vector<uint8_t> codes(e.cols);
      for (size_t r = begin; r < end; ++r)
        RuleRow(e.search, e.x + r * e.cols, e.cols, &by_rule[r * groups], &unused[r * groups], codes.data());
    });
    LeveledScales other = FitScales(e, std::move(by_rule), offsets, row, per, candidates);
    if (ErrorOfRows(e, other.scale) < ErrorOfRows(e, fitted.scale)) fitted = std::move(other);
  }
  scale = std::move(fitted.scale);
  element = std::move(fitted.element);
  if (offsets) out.PutNumbers(Part::kSuperShift, 0, &fitted.offset);
  WriteLevel(e, out, Part::kSuper, fitted.super);
  ParallelFor(e.rows, grain, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(out.code_cols());
    std::vector<float> unused_scale(groups), unused_shift(groups);
    for (size_t r = begin; r < end; ++r) {
      const float* const x = e.x + r * e.cols;
      if (e.rule && !s.rounded_scale) RuleRow(e.search, x, e.cols, unused_scale.data(), unused_shift.data(), codes.data());
      else CodeRow(e, x, &scale[r * groups], &shift[r * groups], codes.data());
      std::fill(codes.begin() + ptrdiff_t(e.cols), codes.end(), uint8_t{0});
      out.PutCodes(r, codes.data());
      if (s.scale.cell == Cell::kInteger) out.PutIntegers(Part::kScale, r, &element[r * groups]);
      else out.PutNumbers(Part::kScale, r, &element[r * groups]);
    }
  });
}

// ---- Groups of several rows

namespace {

struct Region { size_t row, rows, col, cols; };

// All weights of the region row by row, or an even sample of them with the extreme ones.
void GatherRegion(const Encoder& e, const Region& g, std::vector<float>& x, std::vector<float>& w) {
  const size_t total = g.rows * g.cols, step = std::max<size_t>(1, total / kSample);
  size_t low = 0, high = 0;
  const auto at = [&](size_t i) { return e.x[(g.row + i / g.cols) * e.cols + g.col + i % g.cols]; };
  const auto take = [&](size_t i) {
    x.push_back(at(i));
    if (e.importance) w.push_back(e.importance[g.col + i % g.cols]);
  };
  for (size_t i = 0; i < total; i += step) take(i);
  if (step == 1) return;
  for (size_t i = 0; i < total; ++i) {
    if (at(i) < at(low)) low = i;
    if (at(i) > at(high)) high = i;
  }
  take(low);
  take(high);
}

GroupRange RangeOfRegion(const Encoder& e, const Region& g) {
  GroupRange all = {INFINITY, -INFINITY, 0, 0};
  double sum = 0;
  for (size_t r = g.row; r < g.row + g.rows; ++r) {
    const float* const x = e.x + r * e.cols + g.col;
    const GroupRange range = RangeOf(x, g.cols);
    all.low = std::min(all.low, range.low);
    all.high = std::max(all.high, range.high);
    if (std::abs(range.extreme) > std::abs(all.extreme)) all.extreme = range.extreme;
    for (size_t c = 0; c < g.cols; ++c) sum += double(std::abs(x[c]));
  }
  all.mean_magnitude = float(sum / double(g.rows * g.cols));
  return all;
}

double RegionError(const Encoder& e, const Region& g, float scale, float shift) {
  double sum = 0;
  std::vector<uint8_t> codes(g.cols);
  for (size_t r = g.row; r < g.row + g.rows; ++r) {
    const float* const x = e.x + r * e.cols + g.col;
    ChooseCodes(e.search, x, g.cols, scale, shift, codes.data());
    const float zero = e.s.zeros == Zero::kInteger || e.s.zeros == Zero::kFloat ? shift - e.s.zero : 0;
    const float minimum = e.s.zeros == Zero::kMinimum ? shift : 0;
    for (size_t c = 0; c < g.cols; ++c) {
      const float gap = x[c] - ((e.values.value[codes[c]] - zero) * scale + minimum);
      sum += double(e.importance ? e.importance[g.col + c] : 1) * double(gap) * double(gap);
    }
  }
  return sum;
}

}  // namespace

void EncodeRegions(const Encoder& e, SchemeWriter& out) {
  const Scheme& s = e.s;
  const size_t groups = e.groups(), rows = s.GroupRows(e.rows), bands = s.ScaleRows(e.rows);
  std::vector<float> scale(bands * groups), shift(bands * groups);
  std::vector<GroupScale> rule(bands * groups);
  CheckMagnitudes(e, 0, e.rows);
  ParallelFor(bands * groups, 1, [&](size_t begin, size_t end) {
    for (size_t k = begin; k < end; ++k) {
      const size_t row = k / groups * rows, col = k % groups * e.group();
      const Region g = {row, std::min(rows, e.rows - row), col, std::min(e.group(), e.cols - col)};
      rule[k] = ScaleByRule(e.search, RangeOfRegion(e, g));
      scale[k] = rule[k].scale;
      shift[k] = rule[k].shift;
      if (e.rule) continue;
      std::vector<float> x, w;
      float found = 0, found_shift = 0;
      GatherRegion(e, g, x, w);
      SearchGroup(e.search, x.data(), w.empty() ? nullptr : w.data(), x.size(), &found, &found_shift);
      if (RegionError(e, g, found, found_shift) < RegionError(e, g, scale[k], shift[k])) scale[k] = found, shift[k] = found_shift;
    }
  });
  for (size_t b = 0; b < bands; ++b) out.PutScales(b, &scale[b * groups], &shift[b * groups]);
  ParallelFor(e.rows, std::max<size_t>(1, kTask / e.cols), [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(out.code_cols());
    for (size_t r = begin; r < end; ++r) {
      const float* const x = e.x + r * e.cols;
      const size_t band = r / rows * groups;
      if (e.rule)
        for (size_t g = 0; g < groups; ++g)
          CodesByRule(e.search, rule[band + g], x + g * e.group(), std::min(e.group(), e.cols - g * e.group()), &codes[g * e.group()]);
      else CodeRow(e, x, &scale[band], &shift[band], codes.data());
      std::fill(codes.begin() + ptrdiff_t(e.cols), codes.end(), uint8_t{0});
      out.PutCodes(r, codes.data());
    }
  });
}

}  // namespace edgequant
