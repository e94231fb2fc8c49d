// Weights of run-time formats as floats.
#include <algorithm>
#include <memory>
#include <optional>

#include "core/threads.h"
#include "op/hadamard.h"
#include "op/plane_tiles.h"
#include "op/planes.h"
#include "op/scheme_rows.h"

namespace edgequant {
namespace {

// Rows whose words lie among those of others are read by the tile.
bool IsTiled(const Scheme& s) { return !s.interleaved && PlaneTile::Fits(s.code); }

// Codes of 16 weights and more that share a scale are decoded where they lie, if their bits are a stream.
bool CanDecodePacked(const Scheme& s, size_t cols) {
  return s.dim == 1 && cols % 16 == 0 && s.GroupCols(cols) % 16 == 0 && s.block % 16 == 0 &&
         (s.interleaved || RowsAreStreams(s.code, s.CodeCols(cols)) || (IsTiled(s) && !s.code.down));
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
    end_ = codes_ + shape.outer * shape.inner * word / 8;
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

  // Codes where they lie.
  void Decode(size_t row, float* out) { Decode(row, codes_ + row * row_bytes_, end_, out); }
  // Codes that begin here: packed, to where may be read, or one byte each.
  void Decode(size_t row, const uint8_t* codes, const uint8_t* end, float* out) {
    scales_.Read(row, scale_.Get<float>(groups_), shift_.Get<float>(groups_), entries_);
    row_.code = row_.packed.first = codes;
    row_.packed.end = end;
    DecodeCodes(row_, out);
    if (rotation_) rotation_->Backward(out);
  }

 private:
  const Hadamard* rotation_;
  ScaleReader scales_;
  size_t groups_, row_bytes_ = 0;
  const uint8_t *codes_ = nullptr, *end_ = nullptr;
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
  size_t grain = std::max<size_t>(8, (size_t{1} << 15) / q.cols / 8 * 8), tile_rows = 0;
  if (IsTiled(s)) {
    Scratch unused;
    grain = tile_rows = PlaneTile(s.code, q.rows, code_cols, unused).rows();
  }
  ParallelFor(count, grain, [&](size_t begin, size_t end) {
    RowDecoder decoder(q, meaning, packed ? &pattern : nullptr, rotation.get());
    if (packed && !tile_rows) {
      for (size_t r = begin; r < end; ++r) decoder.Decode(first + r, out + r * q.cols);
      return;
    }
    thread_local Scratch tile_memory;
    std::vector<uint8_t> codes(code_cols);
    std::optional<PlaneTile> tile;
    if (tile_rows) tile.emplace(s.code, q.rows, code_cols, tile_memory);
    for (size_t r = begin; r < end; ++r) {
      if (tile && (r - begin) % tile_rows == 0)
        tile->Read(q.arrays[Part::kCode], first + r, std::min(tile_rows, end - r));
      if (!tile) ReadCodes(q, first + r, 1, codes.data(), code_cols);
      else if (!packed) tile->Take(first + r, codes.data());
      const uint8_t* const from = packed ? tile->Stream(first + r) : codes.data();
      decoder.Decode(first + r, from, from + (packed ? tile->stream_bytes() + 16 : 0), out + r * q.cols);
    }
  });
}

}  // namespace edgequant
