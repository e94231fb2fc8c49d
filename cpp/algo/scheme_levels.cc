// Scales over a second level.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "algo/scheme_encoder.h"
#include "algo/scheme_tuning.h"
#include "core/scratch.h"
#include "core/threads.h"
#include "format/cell.h"

namespace edgequant {
namespace {

constexpr size_t kTask = 1 << 15;     // weights of one task
constexpr size_t kInCache = 1 << 13;  // codes

// To the nearest whole number, below 2^22: without a call of the library.
float Rounded(float v) { return v + 12582912.0f - 12582912.0f; }

// Numbers of one set of groups as elements times one number.
class LevelSearch {
 public:
  LevelSearch(const Scheme& s, const Plane& plane, const Plane& super, bool minimum, int candidates)
      : s_(s), plane_(plane), super_(super) {
    integer_ = plane.cell == Cell::kInteger;
    zero_ = minimum ? 0 : float(s.sub_zero);
    high_ = integer_ ? float((1 << plane.bits) - 1) - zero_ : CellLimit(plane.cell);
    low_ = integer_ ? -zero_ : -high_;
    table_ = minimum || s.sub_table.empty() ? nullptr : &s.sub_table;
    for (size_t k = 0; table_ && k < table_->size(); ++k) sorted_.push_back({(*table_)[k], k});
    std::sort(sorted_.begin(), sorted_.end());
    if (table_) {
      pieces_per_one_ = kPieces / std::max(sorted_.back().first - sorted_.front().first, 1e-30f);
      below_.resize(kPieces);
      for (size_t k = 0, piece = 0; k < sorted_.size(); ++k)
        for (; piece <= PieceOf(sorted_[k].first); ++piece) below_[piece] = std::max<size_t>(k, 1) - 1;
    }
    if (!whole()) return;
    const bool positive = super.cell == Cell::kE8M0 && low_ < 0;  // the number of the set
    for (const bool below : {false, true}) {
      std::vector<float>& ends = ends_[below];
      for (const float end : {high_, low_}) {  // the number of largest magnitude goes there, or a bit beyond
        if (end == 0 || (positive && below != (end < 0))) continue;
        ends.push_back(end);
        for (int k = 1; k < candidates; ++k)
          ends.push_back(end * (1 - 0.3f * float(k - 1) / float(candidates)) + (end < 0 ? -0.4f : 0.4f));
      }
      if (ends.empty()) ends.push_back(below ? -1.0f : 1.0f);  // no element is on that side
      ends.resize((ends.size() + 15) / 16 * 16, ends.back());
    }
  }

  bool whole() const { return integer_ && !table_; }

  // In: n numbers. Out: what they are then, their elements, and the number of the set.
  float Run(float* v, size_t n, float* element) const {
    float extreme = 0;
    for (size_t i = 0; i < n; ++i)
      if (std::abs(v[i]) > std::abs(extreme)) extreme = v[i];
    float super = 0;
    if (table_) super = std::abs(extreme);
    else if (!integer_) super = std::abs(extreme) / high_;
    else if (std::abs(extreme) > 1e-37f) super = extreme / BestEndOf(v, n, extreme);
    super = Stored(super);
    if (extreme != 0 && CellBits(super_.cell) == 8 && !s_.divides) super = BestStep(v, n, super);
    const float inverse = std::abs(super) > 1e-37f ? 1 / super : 0;
    for (size_t i = 0; i < n; ++i) {
      element[i] = Element(v[i] * inverse);
      v[i] = Value(element[i]) * super;
    }
    return super;
  }

  float Stored(float super) const {
    return s_.divides ? 1 / AsStored(super_.cell, super != 0 ? 1 / super : 1) : AsStored(super_.cell, super);
  }
  // The element nearest to u, and what it stands for.
  float Element(float u) const {
    if (whole()) return Rounded(std::min(std::max(u, low_), high_)) + zero_;
    if (!table_) return AsStored(plane_.cell, u);
    size_t at = below_[PieceOf(u)];  // the last that is below u, or the first; then the nearer neighbour
    while (at + 1 < sorted_.size() && sorted_[at + 1].first < u) ++at;
    if (at + 1 < sorted_.size() && std::abs(sorted_[at + 1].first - u) < std::abs(sorted_[at].first - u)) ++at;
    return float(sorted_[at].second);
  }
  float Value(float element) const { return table_ ? (*table_)[size_t(element)] : element - zero_; }

 private:
  static constexpr int kPieces = 1024;
  // Where between the ends of the table u lies: never more for less.
  size_t PieceOf(float u) const {
    const float from_first = (u - sorted_.front().first) * pieces_per_one_;
    return size_t(std::min(std::max(0.0f, from_first), float(kPieces - 1)));
  }

  float BestEndOf(const float* v, size_t n, float extreme) const {
    const std::vector<float>& ends = ends_[extreme < 0];
    return ends[BestEnd(v, n, 1 / extreme, ends.data(), ends.size(), low_, high_)];
  }
  // Cells of 8 bits are coarse, and those of E4M3 end soon: the best of the neighbours.
  float BestStep(const float* v, size_t n, float super) const {
    float best = super, least = INFINITY;
    for (int step = -2; step <= 2; ++step) {
      const float to = StepCell(super_.cell, super, step), inverse = 1 / to;
      float error = 0;
      for (size_t i = 0; i < n; ++i) {
        const float gap = v[i] - Value(Element(v[i] * inverse)) * to;
        error += gap * gap;
      }
      if (error < least) least = error, best = to;
    }
    return best;
  }

  const Scheme& s_;
  const Plane &plane_, &super_;
  bool integer_;
  float zero_, high_, low_;
  const std::vector<float>* table_;
  std::vector<std::pair<float, size_t>> sorted_;  // the values of the table, and where they are
  float pieces_per_one_ = 0;
  std::vector<size_t> below_;  // of each piece: the last value in those before it, or the first of all
  std::vector<float> ends_[2];  // for a number of largest magnitude above 0, and below
};

// Numbers of the groups of some rows as elements of a level: they become what is stored.
struct Level {
  std::vector<float> value, element, super;  // of groups; of sets, in order

  // Set after set of `per` of them in rows of `row` (0: one set).
  void Fit(const LevelSearch& search, size_t row, size_t per) {
    const size_t total = value.size(), length = row ? row : total, step = per ? per : length;
    const size_t sets_per_row = (length + step - 1) / step, rows = total / length;
    super.resize(rows * sets_per_row);
    element.resize(total);
    ParallelFor(super.size(), 64, [&](size_t begin, size_t end) {
      for (size_t k = begin; k < end; ++k) {
        const size_t first = k / sets_per_row * length + k % sets_per_row * step;
        const size_t n = std::min(step, length - k % sets_per_row * step);
        super[k] = search.Run(&value[first], n, &element[first]);
      }
    });
  }
};

// Elements and numbers of a set of n groups that are best for the codes that these sums are of.
void SettleSet(const LevelSearch& scales, const LevelSearch* minima, const GroupSums* sums, size_t n, float* scale,
               float& d, float* minimum, float& d_min) {
  double exl = 0, eell = 0, fx = 0, ffw = 0, efl = 0;
  const float inverse = std::abs(d) > 1e-37f ? 1 / d : 0, inverse_min = std::abs(d_min) > 1e-37f ? 1 / d_min : 0;
  for (size_t g = 0; g < n; ++g) {
    const GroupSums& a = sums[g];
    const auto minimum_of = [&] { return minima ? minima->Value(minimum[g]) * d_min : 0.0f; };
    if (a.ll > 0) scale[g] = scales.Element((a.xl - minimum_of() * a.l) / a.ll * inverse);
    const float e = scales.Value(scale[g]);
    if (minima && a.w > 0) minimum[g] = minima->Element((a.x - e * d * a.l) / a.w * inverse_min);
    const float f = minima ? minima->Value(minimum[g]) : 0;
    exl += double(e) * double(a.xl);
    eell += double(e) * double(e) * double(a.ll);
    fx += double(f) * double(a.x);
    ffw += double(f) * double(f) * double(a.w);
    efl += double(e) * double(f) * double(a.l);
  }
  const auto error = [&](double s, double m) {
    return s * s * eell + m * m * ffw + 2 * (s * m * efl - s * exl - m * fx);
  };
  const double det = eell * ffw - efl * efl;
  float next = d, next_min = d_min;
  if (ffw > 0 && det > 1e-9 * eell * ffw) {
    next = scales.Stored(float((exl * ffw - fx * efl) / det));
    next_min = minima->Stored(float((fx - double(next) * efl) / ffw));
  } else if (eell > 0) {
    next = scales.Stored(float((exl - double(d_min) * efl) / eell));
  }
  if (std::isfinite(next) && std::isfinite(next_min) &&
      error(double(next), double(next_min)) < error(double(d), double(d_min)))
    d = next, d_min = next_min;
}

// The numbers of the sets of rows [first, first + rows).
void WriteLevel(const Encoder& e, SchemeWriter& out, Part part, const std::vector<float>& super, size_t first,
                size_t rows) {
  const Grid2 grid = GridOf(e.s, part, e.rows, e.cols);
  std::vector<float> stored = super;
  if (e.s.divides && part == Part::kSuper)
    for (float& v : stored) v = v != 0 ? 1 / v : 1;
  const size_t all = grid.rows == e.rows ? rows : grid.rows;
  for (size_t r = 0; r < all; ++r) out.PutNumbers(part, first + r, &stored[r * grid.cols]);
}

// Rows whose sets of groups are theirs alone, or all rows.
class LevelRows {
 public:
  LevelRows(const Encoder& e, SchemeWriter& out, Effort effort)
      : e_(e),
        s_(e.s),
        out_(out),
        effort_(effort),
        groups_(e.groups()),
        per_(size_t(e.s.super_group)),
        grain_(std::max<size_t>(1, kTask / e.cols)),
        minima_(s_.zeros == Zero::kMinimum && s_.super_shift.present()),
        apart_(s_.super_group != 0 && !s_.super.flat),
        tuning_(effort == e.effort ? e.tuning : SchemeTuningOf(s_, e.values, effort)),
        search_(e.search),
        scale_search_(s_, s_.scale, s_.super, false, Candidates(effort)) {
    if (effort == Effort::kDefault) tuning_.rounds = 1;  // the last is that of Settle
    search_.tuning = &tuning_;
    search_.any_shift = minima_;
    search_.minimum_below_zero = minima_;
    if (minima_) minimum_search_.emplace(s_, s_.shift, s_.super_shift, true, Candidates(effort));
  }

  bool apart() const { return apart_; }  // sets are within a row
  size_t grain() const { return grain_; }

  void Encode(size_t first, size_t rows) {
    Find(first, rows);
    Write();
  }

 private:
  static int Candidates(Effort effort) { return effort == Effort::kFast ? 8 : effort == Effort::kDefault ? 16 : 32; }

  // Scales and minima of these rows. Rounded to two levels, more effort can end above less: each set keeps the better.
  void Find(size_t first, size_t rows) {
    Search(first, rows);
    if (effort_ == Effort::kFast || (effort_ == Effort::kDefault && (s_.rule != Rule::kNone || Settled()))) return;
    LevelRows less(e_, out_, Effort(int(effort_) - 1));
    less.Find(first, rows);
    KeepBetter(std::move(less));
  }

  // Whether what fast finds is hardly ever better than what default does: integers of many steps, settled and tried.
  bool Settled() const { return Refines() && s_.scale.bits > 4 && CellBits(s_.super.cell) > 8; }
  bool Refines() const {
    const bool counts_from_0 = s_.zeros == Zero::kNone || (minima_ && s_.zero == 0);
    return apart_ && !e_.rule && counts_from_0 && scale_search_.whole();
  }

  void Search(size_t first, size_t rows) {
    const size_t row = apart_ ? groups_ : 0;
    first_ = first, rows_ = rows;
    scale_.value.resize(rows * groups_);
    shift_.value.resize(rows * groups_);
    FindScales();
    if (minima_) {
      shift_.Fit(*minimum_search_, row, per_);
      RefitScales();
    }
    const bool offsets = s_.super_shift.present() && !minima_;
    offset_ = FitScales(offsets, scale_);
    if (!e_.rule && !minima_ && s_.rule != Rule::kNone) {  // what is best for each group need not be so any more
      LevelRows other(e_, out_, effort_);
      other.first_ = first, other.rows_ = rows;
      other.scale_.value.resize(rows * groups_);
      other.shift_.value.resize(rows * groups_);
      ByRule(other.scale_.value.data(), other.shift_.value.data());
      other.offset_ = FitScales(offsets, other.scale_);
      KeepBetter(std::move(other));
    }
    const int rounds = effort_ == Effort::kFast ? 0 : effort_ == Effort::kDefault ? 1 : 4;
    for (int k = 0; k < rounds && Refines(); ++k) Settle();
    if (rounds > 0 && Refines() && (s_.bits >= s_.scale.bits || effort_ == Effort::kBest)) TryNeighbours();
  }

  // Of each set that is a row's own the better of two results, else of all rows at once.
  void KeepBetter(LevelRows&& other) {
    const std::vector<double> own = Errors(), others = other.Errors();
    if (!apart_) {
      if (!(std::accumulate(others.begin(), others.end(), 0.0) < std::accumulate(own.begin(), own.end(), 0.0))) return;
      scale_ = std::move(other.scale_), shift_ = std::move(other.shift_), offset_ = other.offset_;
      return;
    }
    const size_t sets = s_.SupersOf(e_.cols);
    for (size_t set = 0; set < own.size(); ++set) {
      if (!(others[set] < own[set])) continue;
      const size_t g = set / sets * groups_ + set % sets * per_, n = std::min(per_, groups_ - set % sets * per_);
      for (Level LevelRows::* level : {&LevelRows::scale_, &LevelRows::shift_}) {
        Level &to = this->*level, &from = other.*level;
        std::copy_n(&from.value[g], n, &to.value[g]);
        if (!to.element.empty()) std::copy_n(&from.element[g], n, &to.element[g]);
        if (!to.super.empty()) to.super[set] = from.super[set];
      }
    }
  }

  // Weighted squared errors with the best codes, of each set of each row.
  std::vector<double> Errors() const {
    const size_t sets = apart_ ? s_.SupersOf(e_.cols) : 1, per = apart_ ? per_ : groups_;
    const bool minima = s_.zeros == Zero::kMinimum, zeros = s_.zeros != Zero::kNone && !minima;
    std::vector<double> errors(rows_ * sets);
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      std::vector<uint8_t> codes(s_.CodeCols(e_.cols));
      for (size_t r = begin; r < end; ++r) {
        const float* const x = Row(r);
        const float *const scale = &scale_.value[r * groups_], *const shift = &shift_.value[r * groups_];
        CodeRow(e_, x, scale, shift, codes.data());
        for (size_t g = 0; g < groups_; ++g) {
          const float zero = zeros ? shift[g] - s_.zero : 0, minimum = minima ? shift[g] : 0;
          const size_t first = g * e_.group(), n = std::min(e_.group(), e_.cols - first);
          float sum = 0;
          for (size_t c = first; c < first + n; ++c) {
            const float gap = x[c] - ((e_.values.value[codes[c]] - zero) * scale[g] + minimum);
            sum += (e_.importance ? e_.importance[c] : 1) * gap * gap;
          }
          errors[r * sets + g / per] += double(sum);
        }
      }
    });
    return errors;
  }

  const float* Row(size_t r) const { return e_.x + (first_ + r) * e_.cols; }

  void FindScales() {
    if (e_.rule) return ByRule(scale_.value.data(), shift_.value.data());
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      CheckMagnitudes(e_, first_ + begin, end - begin);
      float *const scale = &scale_.value[begin * groups_], *const shift = &shift_.value[begin * groups_];
      FindRows(e_, search_, Row(begin), end - begin, scale, shift);
    });
  }

  // Codes of the rule follow from scales that are not rounded: they are known before the second level.
  bool codes_first() const { return e_.rule && !s_.rounded_scale; }

  void ByRule(float* scale, float* shift) const {
    const size_t at_once = std::max<size_t>(1, kInCache / out_.code_cols());
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      SchemeWriter::Run run(out_);
      thread_local Scratch memory;
      uint8_t* const codes = memory.Get<uint8_t>(at_once * out_.code_cols());
      for (size_t r = begin, n; r < end; r += n) {
        n = std::min(at_once, end - r);
        RuleRows(e_, search_, first_ + r, n, out_.code_cols(), scale + r * groups_, shift + r * groups_, {codes});
        if (codes_first()) run.Put(first_ + r, codes, n);
      }
    });
  }

  // The second level of these scales; returns the one number that all of them have in common.
  float FitScales(bool offsets, Level& level) const {
    float offset = 0;
    if (offsets) {
      double sum = 0;
      for (float v : level.value) sum += double(v);
      offset = AsStored(s_.super_shift.cell, float(sum / double(level.value.size())));
      for (float& v : level.value) v -= offset;
    }
    level.Fit(scale_search_, apart_ ? groups_ : 0, per_);
    for (float& v : level.value) v += offset;
    return offset;
  }

  // After the minima were rounded: the scales that fit the codes best.
  void RefitScales() {
    if (s_.zero != 0) return;
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      std::vector<GroupSums> sums((end - begin) * groups_);
      float *const scale = &scale_.value[begin * groups_], *const shift = &shift_.value[begin * groups_];
      SumGroups(search_, Row(begin), end - begin, e_.cols, e_.importance, scale, shift, sums.data());
      for (size_t g = 0; g < sums.size(); ++g)
        if (sums[g].ll > 0) scale[g] = std::max(0.0f, (sums[g].xl - shift[g] * sums[g].l) / sums[g].ll);
    });
  }

  // Elements and numbers anew, for the codes that are best with those so far.
  void Settle() {
    const size_t sets = s_.SupersOf(e_.cols);
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      std::vector<GroupSums> sums((end - begin) * groups_);
      SumGroups(search_, Row(begin), end - begin, e_.cols, e_.importance, &scale_.value[begin * groups_],
                &shift_.value[begin * groups_], sums.data());
      for (size_t set = begin * sets; set < end * sets; ++set) {
        const size_t g = set / sets * groups_ + set % sets * per_, n = std::min(per_, groups_ - set % sets * per_);
        float none = 0, &d = scale_.super[set], &d_min = minima_ ? shift_.super[set] : none;
        SettleSet(scale_search_, minima_ ? &*minimum_search_ : nullptr, &sums[g - begin * groups_], n,
                  &scale_.element[g], d, minima_ ? &shift_.element[g] : nullptr, d_min);
        for (size_t k = g; k < g + n; ++k) {
          scale_.value[k] = scale_search_.Value(scale_.element[k]) * d;
          if (minima_) shift_.value[k] = minimum_search_->Value(shift_.element[k]) * d_min;
        }
      }
    });
  }

  // Elements one up and one down: few bits of scales cut the largest weights, or waste codes, more than a fit foresees.
  void TryNeighbours() {
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      const size_t first = begin * groups_, n = (end - begin) * groups_, sets = s_.SupersOf(e_.cols);
      const float last = float((1 << s_.scale.bits) - 1);
      std::vector<GroupSums> sums(n);
      float *const element = &scale_.element[first], *const value = &scale_.value[first];
      const float* const shift = &shift_.value[first];
      const std::vector<float> from(element, element + n);
      std::vector<float> tried(n), scale(n);
      std::vector<double> least(n, INFINITY);
      for (const float step : {0.0f, 1.0f, -1.0f}) {
        for (size_t g = 0; g < n; ++g) {
          const size_t set = (begin + g / groups_) * sets + g % groups_ / per_;
          tried[g] = std::min(std::max(from[g] + step, 0.0f), last);
          scale[g] = scale_search_.Value(tried[g]) * scale_.super[set];
        }
        SumGroups(search_, Row(begin), end - begin, e_.cols, e_.importance, scale.data(), shift, sums.data());
        for (size_t g = 0; g < n; ++g) {
          const GroupSums& a = sums[g];
          const double s = double(scale[g]), m = minima_ ? double(shift[g]) : 0;  // less what no choice changes
          const double error =
              s * (s * double(a.ll) - 2 * double(a.xl)) + m * (m * double(a.w) + 2 * s * double(a.l) - 2 * double(a.x));
          if (error < least[g]) least[g] = error, element[g] = tried[g], value[g] = scale[g];
        }
      }
    });
  }

  void Write() {
    if (s_.super_shift.present() && !minima_) out_.PutNumbers(Part::kSuperShift, 0, &offset_);
    WriteLevel(e_, out_, Part::kSuper, scale_.super, first_, rows_);
    if (minima_) WriteLevel(e_, out_, Part::kSuperShift, shift_.super, first_, rows_);
    ParallelFor(rows_, grain_, [&](size_t begin, size_t end) {
      SchemeWriter::Run run(out_);
      std::vector<uint8_t> codes(out_.code_cols());
      for (size_t r = begin; r < end; ++r) {
        const float *const scale = &scale_.value[r * groups_], *const shift = &shift_.value[r * groups_];
        if (!codes_first()) {
          CodeRow(e_, Row(r), scale, shift, codes.data());
          std::fill(codes.begin() + ptrdiff_t(e_.cols), codes.end(), uint8_t{0});
          run.Put(first_ + r, codes.data(), 1);
        }
        const float* const element = &scale_.element[r * groups_];
        if (s_.scale.cell == Cell::kInteger) out_.PutIntegers(Part::kScale, first_ + r, element);
        else out_.PutNumbers(Part::kScale, first_ + r, element);
        if (minima_) out_.PutIntegers(Part::kShift, first_ + r, &shift_.element[r * groups_]);
        else if (s_.zeros != Zero::kNone && s_.shift.cell == Cell::kInteger)
          out_.PutIntegers(Part::kShift, first_ + r, shift);
        else if (s_.zeros != Zero::kNone) out_.PutNumbers(Part::kShift, first_ + r, shift);
      }
    });
  }

  const Encoder& e_;
  const Scheme& s_;
  SchemeWriter& out_;
  Effort effort_;
  size_t groups_, per_, grain_, first_ = 0, rows_ = 0;
  bool minima_, apart_;  // minima over a second level, too
  SchemeTuning tuning_;
  SchemeSearch search_;
  LevelSearch scale_search_;
  std::optional<LevelSearch> minimum_search_;
  Level scale_, shift_;
  float offset_ = 0;  // of all scales
};

}  // namespace

void EncodeLevels(const Encoder& e, SchemeWriter& out) {
  const LevelRows all(e, out, e.effort);
  if (!all.apart()) return LevelRows(e, out, e.effort).Encode(0, e.rows);
  ParallelFor(e.rows, all.grain(),
              [&](size_t begin, size_t end) { LevelRows(e, out, e.effort).Encode(begin, end - begin); });
}

}  // namespace edgequant
