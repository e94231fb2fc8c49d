#include "op/scheme_panel.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

#include "core/threads.h"
#include "kernels/cpu/bits.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/panel_pack.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/scheme_values.h"
#include "op/plane_tiles.h"
#include "op/planes.h"
#include "op/scheme_layout.h"
#include "op/scheme_rows.h"

namespace edgequant {
namespace {

constexpr int kLeastGroup = 4;  // smaller ones, filled up to 16, would take more memory than numbers

// The largest magnitude, as a number.
float MostOf(const float* values, size_t n) { return std::bit_cast<float>(LargestMagnitude(values, n)); }

constexpr float kNoFraction = 12582912;  // added to a small number, it leaves no place for one

// The nearest whole number.
float Whole(float v) { return (v + kNoFraction) - kNoFraction; }

// Whole numbers nearest to v * by, within 127: the lowest byte of a sum in which nothing else has a place.
void RoundToBytes(const float* v, size_t n, float by, uint8_t* out) {
  for (size_t k = 0; k < n; ++k) out[k] = uint8_t(std::bit_cast<uint32_t>(v[k] * by + kNoFraction));
}

// Of few entries: the step that brings them nearest to whole ones from the lowest entry up to 63.
float BestStep(const float* entries, size_t n, float low, float high) {
  constexpr int kSteps = 32, kMost = 63;  // numbers of steps up to the highest entry
  float step[kSteps], inverse[kSteps], error[kSteps] = {};
  for (int i = 0; i < kSteps; ++i) {
    step[i] = (high - low) / float(kMost - i);
    inverse[i] = step[i] > 0 ? 1 / step[i] : 0;
  }
  for (size_t k = 0; k < n; ++k)
    for (int i = 0; i < kSteps; ++i) {
      const float u = (entries[k] - low) * inverse[i], gap = (u - Whole(u)) * step[i];
      error[i] += gap * gap;
    }
  return step[std::min_element(error, error + kSteps) - error];
}

using Members = std::vector<std::vector<uint32_t>>;  // the columns of each group

Members MembersOf(const int32_t* groups, size_t cols, size_t count) {
  Members members(count);
  for (size_t c = 0; c < cols; ++c) {
    if (groups[c] < 0 || size_t(groups[c]) >= count)
      Fail("column ", c, " belongs to group ", groups[c], ", but there are ", count);
    members[size_t(groups[c])].push_back(uint32_t(c));
  }
  return members;
}

// Halves the panel's group until what is filled up is little.
int LargestUnit(const Members& members, size_t cols, int unit) {
  const auto filled = [&] {
    size_t n = 0;
    for (const auto& m : members) n += (m.size() + size_t(unit) - 1) / size_t(unit) * size_t(unit);
    return n;
  };
  while (unit > 16 && filled() > cols + std::max<size_t>(cols / 16, size_t(unit))) unit /= 2;
  return unit;
}

// Where the columns of the format are in the panel.
struct RowPlaces {
  // `groups`, unless null, names that of each column, and the panel's may become smaller.
  RowPlaces(const SchemeView& q, const int32_t* groups, int* panel_group) : cols(q.cols) {
    const size_t group = q.scheme->GroupCols(q.cols);
    if (!groups && q.scheme->group % 16 == 0) {
      unit = size_t(*panel_group);
      for (size_t k = 0; k * unit < cols; ++k) group_of.push_back(k * unit / group);
      return;
    }
    std::vector<int32_t> regular(groups ? 0 : cols);
    for (size_t c = 0; c < regular.size(); ++c) regular[c] = int32_t(c / group);
    const Members members = MembersOf(groups ? groups : regular.data(), cols, q.scheme->GroupsOf(cols));
    if (groups) *panel_group = LargestUnit(members, cols, *panel_group);
    unit = size_t(*panel_group);
    for (size_t g = 0; g < members.size(); ++g) {
      order.insert(order.end(), members[g].begin(), members[g].end());
      order.resize((order.size() + unit - 1) / unit * unit, uint32_t(q.cols));
      group_of.resize(order.size() / unit, g);
    }
    cols = order.size();
  }

  size_t cols, unit;              // of the panel: columns, and those of a group
  std::vector<uint32_t> order;    // if they are sorted: the format's columns; q.cols to fill a group up
  std::vector<size_t> group_of;   // of each group of the panel
};

// Codes of `dim` columns and `digits` bytes each in that order; what fills a group up repeats a code of it.
void Reorder(const std::vector<uint32_t>& order, size_t cols, size_t dim, size_t digits, const uint8_t* codes,
             uint8_t* out) {
  const auto reorder = [&](auto bytes) {
    uint32_t from = 0;
    for (size_t k = 0; k < order.size(); k += dim, out += bytes) {
      from = order[k] < cols ? order[k] / uint32_t(dim) : from;
      memcpy(out, codes + from * bytes, bytes);
    }
  };
  if (digits == 1) reorder(std::integral_constant<size_t, 1>());
  else reorder(std::integral_constant<size_t, 2>());
}

// n scales or minima as the panel has them.
void StoreScales(PanelScale kind, const float* v, size_t n, uint8_t* out) {
  if (kind == PanelScale::kF32) memcpy(out, v, n * sizeof(float));
  else if (kind == PanelScale::kBF16) DemoteToBF16(v, n, reinterpret_cast<uint16_t*>(out));
  else DemoteToF16(v, n, reinterpret_cast<uint16_t*>(out));
}

// Scales and minima of the rows, and codes as the panel has them.
class RowReader {
 public:
  RowReader(const SchemeView& q, const RowRecipe& recipe, const RowPlaces& places)
      : q_(q),
        recipe_(recipe),
        scales_(q),
        groups_(q.scheme->GroupsOf(q.cols)),
        cols_(places.cols),
        panel_group_(places.unit),
        group_of_(places.group_of),
        scale(groups_),
        shift(groups_),
        entries_(recipe.own_tables ? groups_ * size_t(q.scheme->codes) : 0),
        numbers_(recipe.numbers.empty() ? 0 : places.cols) {}

  // scale and shift of a row; the scale of a table is its largest magnitude, or the step between its lowest entry, the
  // shift, and the highest.
  void Read(size_t row) {
    scales_.Read(row, scale.data(), shift.data(), entries_.empty() ? nullptr : entries_.data());
    const size_t codes = size_t(q_.scheme->codes);
    for (size_t g = 0; g < groups_ && recipe_.own_tables; ++g) {
      const float* const entries = &entries_[g * codes];
      if (recipe_.steps) {
        const auto [low, high] = std::minmax_element(entries, entries + codes);
        shift[g] = *low;
        scale[g] = BestStep(entries, codes, *low, *high);
        continue;
      }
      scale[g] = 0;
      for (size_t k = 0; k < codes; ++k) scale[g] = std::max(scale[g], std::abs(entries[k]));
    }
  }
  // Codes of the row that was read, from those of the format, and by what each group of the panel multiplies its scale.
  void Recode(const uint8_t* codes, uint8_t* out, float* factor) {
    if (recipe_.own_tables) return RecodeTables(codes, out);
    if (recipe_.numbers.empty()) return LookUp(recipe_.bytes.data(), codes, out);
    Numbers(codes);
    for (size_t begin = 0; begin < cols_; begin += panel_group_) {
      const size_t end = std::min(cols_, begin + panel_group_);
      const float most = MostOf(&numbers_[begin], end - begin), by = most > 0 ? 127 / most : 0;
      factor[begin / panel_group_] = most / 127;
      RoundToBytes(&numbers_[begin], end - begin, by, out + begin);
    }
  }

 private:
  // numbers_, those of the codes.
  void Numbers(const uint8_t* codes) {
    if (!recipe_.meaning) return LookUp(recipe_.numbers.data(), codes, numbers_.data());
    DecodeRow row = recipe_.meaning->row;
    row.zeros = Zero::kNone;
    row.code = codes;
    row.cols = row.group = cols_;
    DecodeCodes(row, numbers_.data());
  }
  template <class T>
  void LookUp(const T* table, const uint8_t* codes, T* out) const {
    const int digit = q_.scheme->bits / 2;
    const auto look_up = [&](auto dim) {
      const size_t n = cols_ / dim;
      if (q_.scheme->digits() == 1)
        for (size_t c = 0; c < n; ++c) memcpy(out + c * dim, table + codes[c] * dim, dim * sizeof(T));
      else
        for (size_t c = 0; c < n; ++c)
          memcpy(out + c * dim, table + size_t(codes[2 * c] | codes[2 * c + 1] << digit) * dim, dim * sizeof(T));
    };
    switch (q_.scheme->dim) {
      case 1: return look_up(std::integral_constant<size_t, 1>());
      case 2: return look_up(std::integral_constant<size_t, 2>());
      case 4: return look_up(std::integral_constant<size_t, 4>());
      default: return look_up(std::integral_constant<size_t, 8>());
    }
  }
  void RecodeTables(const uint8_t* codes, uint8_t* out) const {
    const size_t count = size_t(q_.scheme->codes);
    uint8_t bytes[256] = {};
    for (size_t p = 0; p < group_of_.size(); ++p) {
      const size_t g = group_of_[p];
      const float unit = scale[g] > 0 ? (recipe_.steps ? 1 : 127) / scale[g] : 0, from = recipe_.steps ? shift[g] : 0;
      for (size_t k = 0; k < count && (p == 0 || g != group_of_[p - 1]); ++k)
        bytes[k] = uint8_t(int8_t(Whole((entries_[g * count + k] - from) * unit)));
      for (size_t c = p * panel_group_; c < std::min(cols_, (p + 1) * panel_group_); ++c) out[c] = bytes[codes[c]];
    }
  }

  const SchemeView& q_;
  const RowRecipe& recipe_;
  ScaleReader scales_;
  size_t groups_, cols_, panel_group_;
  const std::vector<size_t>& group_of_;

 public:
  std::vector<float> scale, shift;

 private:
  std::vector<float> entries_, numbers_;
};

// Codes that need no change but of their places: PackPanelCodes reads them where they lie.
struct CodesInPlace {
  static constexpr size_t kAhead = 8;  // words
  CodesInPlace() = default;
  CodesInPlace(const SchemeView& q, const PanelLayout& layout, int code_offset) {
    const Scheme& s = *q.scheme;
    const Plane& p = s.code;
    const size_t code_cols = s.CodeCols(q.cols);
    if (s.dim != 1 || p.trits || (p.offset != 0 && p.bits != 8)) return;
    const bool in_bytes = p.word == 8 && p.slots == 1 && p.lanes == 1 && !p.down && !p.cols_first;
    const int bits = in_bytes ? 8 : p.bits;
    CodeStream stream{.bits = bits, .high_first = p.high_first && !in_bytes, .block_bytes = kPackChunk * bits / 8};
    codes = q.arrays[Part::kCode];
    if (s.interleaved) {
      const BlockLayout block = LayoutOf(s);
      if (kPackChunk % s.block != 0 || kPackChunk / size_t(s.block) * block.bytes > kMaxChunkBytes) return;
      stream.block_weights = s.block, stream.block_bytes = int(block.bytes);
      stream.begin = int(block.begin[int(Part::kCode)]);
      row_bytes = stride = q.cols / size_t(s.block) * block.bytes;
    } else if (in_bytes) {
      row_bytes = q.cols, stride = code_cols;
    } else if (RowsAreApart(p, code_cols)) {
      row_bytes = BytesOfBits(q.cols, p.bits);
      stride = RowBytesApart(p, code_cols);
    } else if (PlaneTile::Fits(p) && !p.down && p.word == 32) {
      row_bytes = BytesOfBits(q.cols, p.bits);
      stride = 4 * q.rows;
      side_by_side = true;
    } else {
      return;
    }
    minus = uint8_t(code_offset + p.offset);
    plan.emplace(PlanOfCodes(stream, layout.bits));
  }
  // Words side by side of `panels` panels, whose first row is `first`, panel by panel: those of a row lie in other
  // pages each, and all of a line of memory should be used while it is in the cache.
  void CopyWords(size_t first, size_t rows, uint8_t* out) const {
    const size_t words = (row_bytes + 3) / 4;
    for (size_t w = 0; w < words; ++w) {
      const uint8_t* const from = codes + w * stride + 4 * first;
      if (w + kAhead < words)
        for (size_t i = 0; i < 4 * rows; i += kPanelLine) __builtin_prefetch(from + kAhead * stride + i);
      for (size_t i = 0; i < 4 * rows; i += kPanelLine)
        memcpy(out + i * words + w * kPanelLine, from + i, std::min<size_t>(kPanelLine, 4 * rows - i));
    }
  }

  std::optional<PackPlan> plan;  // none: they are not such
  const uint8_t* codes = nullptr;
  size_t row_bytes = 0, stride = 0;
  bool side_by_side = false;
  uint8_t minus = 0;
};

// By what scales that are no f16 anyway are divided: the one there is, or a power of two that moves them to where f16
// has its full precision.
float UnitOf(const SchemeView& q, const SchemeLayout& made, const RowPlaces& places) {
  const Scheme& s = *q.scheme;
  const RowRecipe& recipe = made.recipe;
  if (made.one_scale) {
    RowReader reader(q, recipe, places);
    reader.Read(0);
    const float scale = std::abs(reader.scale[0]);
    return scale > 0 && std::isfinite(scale) ? scale : 1;
  }
  const bool own = recipe.own_tables || !recipe.numbers.empty(),
             wide = s.scaled() && (s.super.present() || s.scale.cell != Cell::kF16);
  if ((made.exact_values && made.exact_scales) || made.panel.scale != PanelScale::kF16 || !(own || wide)) return 1;
  std::vector<float> most(q.rows);
  ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
    RowReader reader(q, recipe, places);
    for (size_t r = begin; r < end; ++r) {
      reader.Read(r);
      most[r] = MostOf(reader.scale.data(), reader.scale.size());
      if (s.zeros == Zero::kMinimum || recipe.steps)
        most[r] = std::max(most[r], MostOf(reader.shift.data(), reader.shift.size()) / 64);
    }
  });
  const float highest = recipe.numbers.empty() ? 127 : MostOf(recipe.numbers.data(), recipe.numbers.size());
  const float all = *std::max_element(most.begin(), most.end()) * (highest / 127);
  int exponent = 0;
  if (all > 0 && std::isfinite(all)) std::frexp(all, &exponent);
  return std::ldexp(1.0f, std::max(-100, std::min(exponent, 100)) - 8);
}

// Makes panels of 16 rows, on one thread.
class PanelMaker {
 public:
  static constexpr size_t kTogether = 8;

  PanelMaker(const SchemeView& q, const SchemeLayout& made, const RowPlaces& places, const CodesInPlace& in_place,
             float unit)
      : q_(q), s_(*q.scheme), recipe_(made.recipe), layout_(made.panel), places_(places), in_place_(in_place),
        unit_(unit), groups_(layout_.GroupsOf(places.cols)), number_(layout_.number_bytes()),
        code_cols_(s_.CodeCols(q.cols)), reader_(q, recipe_, places), factor_(groups_, 1.0f), numbers_(groups_),
        scales_(kPanelRows * groups_ * number_), minima_(layout_.minima ? scales_.size() : 0) {
    code_stride_ = in_place.side_by_side ? (in_place.row_bytes + 3) / 4 * 4 : in_place.plan ? 0 : code_cols_;
    codes_.resize(kTogether * kPanelRows * code_stride_);
    if (in_place.plan) return;
    if (!places.order.empty()) ordered_.resize(kPanelRows * OrderedCols());
    if (recipe_.Recodes()) own_.resize(kPanelRows * places.cols);
  }

  // Panels [begin, end), at most kTogether, to `out`.
  void Make(size_t begin, size_t end, uint8_t* out) {
    const size_t rows = std::min(end * kPanelRows, q_.rows) - begin * kPanelRows;
    const size_t bytes = layout_.PanelBytes(places_.cols);
    if (in_place_.side_by_side) in_place_.CopyWords(begin * kPanelRows, rows, codes_.data());
    else if (!in_place_.plan) ReadCodes(begin * kPanelRows, rows);
    for (size_t p = begin; p < end; ++p, out += bytes) {
      const size_t first = p * kPanelRows, count = std::min<size_t>(kPanelRows, q_.rows - first);
      const uint8_t* const codes = codes_.data() + (p - begin) * kPanelRows * code_stride_;
      for (size_t r = 0; r < count; ++r) {
        reader_.Read(first + r);
        if (!in_place_.plan) MakeCodes(codes + r * code_cols_, r);
        MakeScales(r);
      }
      PanelCodes from{};
      from.scales = scales_.data(), from.minima = minima_.data(), from.group_stride = groups_, from.count = count;
      if (in_place_.plan) {
        from.plan = &*in_place_.plan, from.row_bytes = in_place_.row_bytes, from.minus = in_place_.minus;
        from.side_by_side = in_place_.side_by_side;
        from.codes = from.side_by_side ? codes : in_place_.codes + first * in_place_.stride;
        from.code_stride = from.side_by_side ? kPanelLine : in_place_.stride;
      } else {
        const uint8_t* const changed = !own_.empty() ? own_.data() : ordered_.empty() ? nullptr : ordered_.data();
        from.plan = &BytePlan(layout_.bits), from.row_bytes = places_.cols;
        from.codes = changed ? changed : codes;
        from.code_stride = changed == nullptr ? code_cols_ : !own_.empty() ? places_.cols : OrderedCols();
      }
      PackPanelCodes(from, layout_, places_.cols, out);
    }
  }

 private:
  size_t OrderedCols() const { return places_.cols / size_t(s_.dim) * size_t(s_.digits()); }

  void ReadCodes(size_t first, size_t rows) {
    edgequant::ReadCodes(q_, first, rows, codes_.data(), code_cols_);
    if (recipe_.code_offset == 0) return;
    for (size_t i = 0; i < rows * code_cols_; ++i) codes_[i] = uint8_t(codes_[i] - recipe_.code_offset);
  }
  void MakeCodes(const uint8_t* row, size_t r) {
    if (!ordered_.empty()) {
      uint8_t* const to = &ordered_[r * OrderedCols()];
      Reorder(places_.order, q_.cols, size_t(s_.dim), size_t(s_.digits()), row, to);
      row = to;
    }
    if (!own_.empty()) reader_.Recode(row, &own_[r * places_.cols], factor_.data());
  }

  void MakeScales(size_t r) {
    const std::vector<size_t>& group_of = places_.group_of;
    const std::vector<float>&scale = reader_.scale, &shift = reader_.shift;
    const size_t n = group_of.size(), at = r * groups_ * number_;
    for (size_t k = 0; k < n; ++k) numbers_[k] = scale[group_of[k]] * factor_[k] / unit_;
    StoreScales(layout_.scale, numbers_.data(), groups_, &scales_[at]);
    if (!layout_.minima) return;
    const float zero = recipe_.zero, beside = s_.values == Values::kAffine ? zero - s_.zero : 0;
    if (layout_.minima_in_scales)
      for (size_t k = 0; k < n; ++k) numbers_[k] = zero - shift[group_of[k]];
    else  // of the weight, beside (code - zero) * scale
      for (size_t k = 0; k < n; ++k) numbers_[k] = (shift[group_of[k]] + beside * scale[group_of[k]]) / unit_;
    StoreScales(layout_.scale, numbers_.data(), groups_, &minima_[at]);
  }

  const SchemeView& q_;
  const Scheme& s_;
  const RowRecipe& recipe_;
  const PanelLayout& layout_;
  const RowPlaces& places_;
  const CodesInPlace& in_place_;
  const float unit_;
  const size_t groups_, number_, code_cols_;
  size_t code_stride_;
  RowReader reader_;
  std::vector<float> factor_, numbers_;
  std::vector<uint8_t> scales_, minima_, codes_, ordered_, own_;
};

}  // namespace

bool CanRepack(const Scheme& s) { return s.group == 0 || s.group >= kLeastGroup; }

bool HoldsNumbersOnly(const SchemeView& q) {
  const Scheme& s = *q.scheme;
  if (s.values != Values::kMinifloat) return true;
  const CodeValues values = ValuesOf(s, nullptr);
  const uint8_t magnitude = uint8_t((1 << (s.bits - 1)) - 1);  // which grows with the code's
  uint8_t last = magnitude;
  while (last > 0 && !(values.value[last] <= s.highest)) --last;
  const size_t code_cols = s.CodeCols(q.cols);
  std::atomic<bool> all{true};
  ParallelFor(q.rows, 64, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(code_cols);
    for (size_t r = begin; r < end; ++r) {
      ReadCodes(q, r, 1, codes.data(), code_cols);
      uint8_t most = 0;
      for (size_t c = 0; c < q.cols; ++c) most = std::max(most, uint8_t(codes[c] & magnitude));
      if (most > last) all = false;
    }
  });
  return all;
}

SchemePanel Repack(const SchemeView& q, const SchemeColumns& columns, bool exact) {
  const Scheme& s = *q.scheme;
  if (!CanRepack(s)) Fail("matmul has no panel for weights in ", s.name);
  SchemeLayout made = PanelLayoutOf(q, exact);
  const bool recoded = made.recipe.Recodes();
  if (columns.groups && (recoded || s.dim != 1))
    Fail("format '", s.name, "': the codes of a column are not whole numbers");
  const RowPlaces places(q, columns.groups, &made.panel.group);
  const bool in_order = places.order.empty();
  const CodesInPlace in_place =
      recoded || !in_order ? CodesInPlace() : CodesInPlace(q, made.panel, made.recipe.code_offset);
  const float unit = UnitOf(q, made, places);
  made.panel.factor *= unit;
  made.panel.min_factor *= unit;
  SchemePanel result;
  result.exact = made.exact_values && made.exact_scales;
  result.panel = AllocatePanel(s.name, made.panel, q.rows, places.cols);
  if (s.transform.hadamard || !in_order || columns.scale) {
    PanelInput input;
    input.cols = q.cols;
    if (columns.scale) input.scale.assign(columns.scale, columns.scale + q.cols);
    input.order = places.order;
    if (s.transform.hadamard) input.rotation = std::make_shared<const Hadamard>(s.transform, q.cols, s.name);
    result.panel.input = std::make_shared<const PanelInput>(std::move(input));
  }
  uint8_t* const out = result.panel.data.get();
  const size_t panel_bytes = result.panel.panel_bytes();
  ParallelFor(result.panel.panels(), PanelMaker::kTogether, [&](size_t begin, size_t end) {
    PanelMaker(q, made, places, in_place, unit).Make(begin, end, out + begin * panel_bytes);
  });
  return result;
}

Panel RepackExactly(const SchemeView& q) {
  if (CanRepack(*q.scheme) && HoldsNumbersOnly(q) && PanelLayoutOf(q, true).exact_values)
    return Repack(q, {}, true).panel;
  return KeepRows(q);
}

}  // namespace edgequant
