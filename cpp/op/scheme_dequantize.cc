// Weights of run-time formats as floats.
#include <algorithm>
#include <memory>

#include "core/threads.h"
#include "op/hadamard.h"
#include "op/planes.h"
#include "op/scheme_rows.h"

namespace edgequant {
namespace {

// Codes of 16 weights and more that share a scale are decoded where they lie, if their bits are a stream.
bool CanDecodePacked(const Scheme& s, size_t cols) {
  return s.dim == 1 && cols % 16 == 0 && s.GroupCols(cols) % 16 == 0 && s.block % 16 == 0 &&
         (s.interleaved || RowsAreApart(s.code, s.CodeCols(cols)));
}

// Rows of one matrix, by one thread.
class RowDecoder {
 public:
  RowDecoder(const SchemeView& q, const CodeMeaning& meaning, const CodePattern* pattern, const Hadamard* rotation)
      : rotation_(rotation), scales_(q), groups_(q.scheme->GroupsOf(q.cols)), row_(meaning.row) {
    const Scheme& s = *q.scheme;
    row_.scale = scale_.Get<float>(groups_);
    row_.shift = shift_.Get<float>(groups_);
    row_.cols = q.cols;
    row_.group = s.GroupCols(q.cols);
    if (s.entries.present()) row_.table = entries_ = entry_memory_.Get<float>(groups_ * size_t(s.codes) + 16);
    row_.packed.pattern = pattern;
    if (!pattern) return;
    const PlaneShape shape = ArrayOf(s, Part::kCode, q.rows, q.cols);
    const size_t word = s.interleaved ? 8 : size_t(s.code.word);
    codes_ = q.arrays[Part::kCode];
    row_.packed.end = codes_ + shape.outer * shape.inner * word / 8;
    if (s.interleaved) {
      const BlockLayout layout = LayoutOf(s);
      row_bytes_ = q.cols / size_t(s.block) * layout.bytes;
      codes_ += layout.begin[int(Part::kCode)];
      row_.packed.run = size_t(s.block);
      row_.packed.step = layout.bytes;
    } else {
      row_bytes_ = RowBytesApart(s.code, s.CodeCols(q.cols));
      row_.packed.run = q.cols;
    }
  }

  // `codes`: one byte each, where they are not packed.
  void Decode(size_t row, const uint8_t* codes, float* out) {
    scales_.Read(row, scale_.Get<float>(groups_), shift_.Get<float>(groups_), entries_);
    row_.code = codes;
    if (row_.packed.pattern) row_.packed.first = codes_ + row * row_bytes_;
    DecodeCodes(row_, out);
    if (rotation_) rotation_->Backward(out);
  }

 private:
  const Hadamard* rotation_;
  ScaleReader scales_;
  size_t groups_, row_bytes_ = 0;
  const uint8_t* codes_ = nullptr;
  DecodeRow row_;
  float* entries_ = nullptr;
  Scratch scale_, shift_, entry_memory_;
};

}  // namespace

void DequantizeScheme(const SchemeView& q, size_t first, size_t count, float* out) {
  const Scheme& s = *q.scheme;
  const size_t code_cols = s.CodeCols(q.cols);
  const CodeMeaning meaning(q);
  const bool packed = CanDecodePacked(s, q.cols);
  const CodePattern pattern = packed ? PatternOf(s.code) : CodePattern();
  std::unique_ptr<const Hadamard> rotation;
  if (s.transform.hadamard) rotation = std::make_unique<const Hadamard>(s.transform, q.cols, s.name);
  const bool one_by_one = s.interleaved || RowsAreApart(s.code, code_cols);  // a row of codes stays in the first cache
  const size_t grain = std::max<size_t>(8, (size_t{1} << 15) / q.cols / 8 * 8);
  ParallelFor(count, grain, [&](size_t begin, size_t end) {
    std::vector<uint8_t> codes(packed ? 0 : (one_by_one ? 1 : end - begin) * code_cols);
    RowDecoder decoder(q, meaning, packed ? &pattern : nullptr, rotation.get());
    if (!one_by_one) ReadCodes(q, first + begin, end - begin, codes.data(), code_cols);
    for (size_t r = begin; r < end; ++r) {
      if (one_by_one && !packed) ReadCodes(q, first + r, 1, codes.data(), code_cols);
      decoder.Decode(first + r, codes.data() + (one_by_one ? 0 : r - begin) * code_cols, out + r * q.cols);
    }
  });
}

}  // namespace edgequant
