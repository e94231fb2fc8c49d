#include "op/scheme_rows.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/threads.h"
#include "kernels/cpu/bits.h"
#include "op/scheme_panel.h"

namespace edgequant {
namespace {

// True if value * scale has at most 24 bits: whole (or half) numbers times scales of few.
bool ProductsAreExact(const Scheme& s) {
  const auto bits_of = [](const Plane& p) {
    switch (p.cell) {
      case Cell::kInteger: return p.bits;
      case Cell::kF16: return 11;
      case Cell::kBF16: return 8;
      case Cell::kE4M3: return 4;
      case Cell::kE8M0: return 1;
      case Cell::kF32: break;
    }
    return 24;
  };
  if (s.values != Values::kAffine || s.divides || !s.sub_table.empty() || s.sub_zero != 0) return false;
  if (s.zero != 0 && (2 * s.zero != std::floor(2 * s.zero) || std::abs(s.zero) > float(1 << s.bits))) return false;
  return s.bits + 2 + (s.scale.present() ? bits_of(s.scale) : 0) + (s.super.present() ? bits_of(s.super) : 0) <= 24;
}

constexpr size_t kLoad = 16;  // bytes that are read from the first of a code on

class RowsOfScheme {
 public:
  explicit RowsOfScheme(const SchemeView& q)
      : meaning_(q),
        cols_(q.cols),
        group_(q.scheme->GroupCols(q.cols)),
        groups_(q.scheme->GroupsOf(q.cols)),
        bits_(q.scheme->bits),
        packed_(q.scheme->dim == 1 && q.cols % 16 == 0 && group_ % 16 == 0),
        code_bytes_(size_t(q.scheme->digits())) {
    const Scheme& s = *q.scheme;
    const size_t code_cols = s.CodeCols(q.cols), entries = s.entries.present() ? groups_ * size_t(s.codes) : 0;
    if (packed_) {
      Plane stream;
      stream.bits = bits_;
      pattern_ = PatternOf(stream);
    }
    row_bytes_ = packed_ ? BytesOfBits(cols_, bits_) : cols_ / size_t(s.dim) * code_bytes_;
    codes_.resize(q.rows * row_bytes_ + kLoad);
    scale_.resize(q.rows * groups_);
    shift_.resize(s.zeros == Zero::kNone ? 0 : scale_.size());
    entries_.resize(entries ? q.rows * entries + 16 : 0);
    ParallelFor(q.rows, kPanelRows, [&](size_t begin, size_t end) {
      std::vector<uint8_t> codes(kPanelRows * code_cols);
      std::vector<float> shift(groups_);
      ScaleReader scales(q);
      for (size_t first = begin; first < end; first += kPanelRows) {
        const size_t count = std::min<size_t>(kPanelRows, end - first);
        ReadCodes(q, first, count, codes.data(), code_cols);
        for (size_t r = first; r < first + count; ++r) {
          const uint8_t* const from = &codes[(r - first) * code_cols];
          uint8_t* const to = &codes_[r * row_bytes_];
          if (packed_) PackBits(from, cols_, bits_, false, 0, to);
          else memcpy(to, from, row_bytes_);
          scales.Read(r, &scale_[r * groups_], shift_.empty() ? shift.data() : &shift_[r * groups_],
                      entries ? &entries_[r * entries] : nullptr);
        }
      }
    });
  }

  // k: a multiple of 16. What is left of a group that began before k comes first.
  void Decode(size_t row, size_t k, size_t count, float* out) const {
    while (count > 0) {
      const size_t g = k / group_, in_group = group_ - k % group_;
      const bool within = k % group_ != 0;
      const size_t n = within ? std::min(count, in_group) : count;
      DecodeGroups(row, g, k, n, within ? n : group_, out);
      k += n, count -= n, out += n;
    }
  }
  size_t bytes() const {
    return codes_.size() - kLoad + (scale_.size() + shift_.size() + entries_.size()) * sizeof(float);
  }

 private:
  void DecodeGroups(size_t row, size_t g, size_t k, size_t n, size_t group, float* out) const {
    DecodeRow piece = meaning_.row;
    const size_t at = row * groups_ + g;
    const uint8_t* const from = &codes_[row * row_bytes_];
    piece.scale = &scale_[at];
    piece.shift = shift_.empty() ? nullptr : &shift_[at];
    if (!entries_.empty()) piece.table = &entries_[at * size_t(piece.codes)];
    piece.cols = n;
    piece.group = group;
    if (packed_) piece.packed = {&pattern_, from + k * size_t(bits_) / 8, codes_.data() + codes_.size(), n, 0};
    else piece.code = from + k / size_t(piece.dim) * code_bytes_;
    DecodeCodes(piece, out);
  }

  const CodeMeaning meaning_;
  const size_t cols_, group_, groups_;
  const int bits_;
  const bool packed_;
  const size_t code_bytes_;
  size_t row_bytes_ = 0;
  CodePattern pattern_;
  std::vector<uint8_t> codes_;
  std::vector<float> scale_, shift_, entries_;
};

}  // namespace

CodeMeaning::CodeMeaning(const SchemeView& q) {
  const Scheme& s = *q.scheme;
  row.dim = s.dim;
  row.half_bits = s.digits() == 2 ? s.bits / 2 : 0;
  row.codes = s.codes;
  row.zeros = s.zeros;
  row.exact_products = ProductsAreExact(s);
  const float* const from = s.learned ? q.table : s.table.data();
  if (s.values == Values::kCodebook) {
    table.assign(from, from + size_t(s.codes) * size_t(s.dim));
    table.resize((size_t{1} << s.bits) * size_t(s.dim));
    row.table = table.data();
  } else if (s.values != Values::kGroupTable) {
    values = ValuesOf(s, from);
    row.values = &values;
  }
}

Panel KeepRows(const SchemeView& q) {
  const auto own = std::make_shared<const RowsOfScheme>(q);
  FloatWeights floats;
  floats.decode = [own](size_t row, size_t k, size_t count, float* out) { own->Decode(row, k, count, out); };
  Panel panel;
  panel.format = q.scheme->name;
  panel.rows = q.rows, panel.cols = q.cols;
  panel.bytes = own->bytes();
  panel.floats = std::make_shared<const FloatWeights>(std::move(floats));
  if (q.scheme->transform.hadamard) {
    PanelInput input;
    input.cols = q.cols;
    input.rotation = std::make_shared<const Hadamard>(q.scheme->transform, q.cols, q.scheme->name);
    panel.input = std::make_shared<const PanelInput>(std::move(input));
  }
  return panel;
}

}  // namespace edgequant
