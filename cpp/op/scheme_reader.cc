#include "op/scheme_reader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/error.h"
#include "kernels/cpu/round.h"
#include "op/scheme_rows.h"

namespace edgequant {
namespace {

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

}  // namespace

float MostOf(const float* values, size_t n) { return std::bit_cast<float>(LargestMagnitude(values, n)); }

RowPlaces::RowPlaces(const SchemeView& q, const int32_t* groups, int* panel_group) : cols(q.cols) {
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
  for (size_t k = 0; k < cols; k += size_t(q.scheme->dim))
    source.push_back(order[k] < q.cols ? order[k] / uint32_t(q.scheme->dim) : source.back());
}

void RowReader::Read(size_t row) {
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

void RowReader::Recode(const uint8_t* codes, uint8_t* out, float* factor) {
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

void RowReader::Numbers(const uint8_t* codes) {
  if (!recipe_.meaning) return LookUp(recipe_.numbers.data(), codes, numbers_.data());
  DecodeRow row = recipe_.meaning->row;
  row.zeros = Zero::kNone;
  row.code = codes;
  row.cols = row.group = cols_;
  DecodeCodes(row, numbers_.data());
}

template <class T>
void RowReader::LookUp(const T* table, const uint8_t* codes, T* out) const {
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

void RowReader::RecodeTables(const uint8_t* codes, uint8_t* out) const {
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

}  // namespace edgequant
