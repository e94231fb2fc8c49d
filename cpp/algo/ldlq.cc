#include "algo/ldlq.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "core/threads.h"
#include "format/shape.h"
#include "kernels/cpu/dequantize.h"
#include "op/hadamard.h"

namespace edgequant {
namespace {

using Eigen::Index;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr size_t kTileRows = 64;     // rows that share one pass over L
constexpr size_t kLeastWidth = 32;   // columns per step: smaller blocks go several at a time

// H + `added` to its diagonal = L D L^T with blocks of `width` columns.
struct Factors {
  Matrix lower;               // L below its diagonal blocks, and there C, D = C C^T
  std::vector<float> weight;  // the diagonal of D
  std::vector<float> plain;   // the diagonal of H
  double added = 0;
};

Factors Factorize(const float* hessian, Index cols, Index width, float damping) {
  Factors f;
  f.lower = Eigen::Map<const Matrix>(hessian, cols, cols);
  for (Index i = 0; i < cols; ++i)
    for (Index j = 0; j <= i; ++j)
      if (!std::isfinite(f.lower(i, j))) Fail("the Hessian holds ", f.lower(i, j), " at row ", i, ", column ", j);
  const float mean = f.lower.diagonal().mean();
  if (f.lower.diagonal().minCoeff() < 0)
    Fail("the Hessian is not positive semi-definite: a number on its diagonal is negative");
  f.plain.resize(size_t(cols));
  Eigen::Map<Eigen::VectorXf>(f.plain.data(), cols) = f.lower.diagonal();
  const float added = mean > 0 ? mean * damping : 1.0f;
  f.added = double(added);
  f.lower.diagonal().array() += added;
  const Eigen::LLT<Eigen::Ref<Matrix>> in_place(f.lower);  // the lower triangle becomes C, H = C C^T
  if (in_place.info() != Eigen::Success)
    Fail("the Hessian is not positive definite; a larger damping than ", damping, " helps");
  f.weight.resize(size_t(cols));
  for (Index first = 0; first < cols; first += width) {
    const Matrix diagonal = f.lower.block(first, first, width, width).triangularView<Eigen::Lower>();
    Eigen::Map<Eigen::VectorXf>(f.weight.data() + first, width) = diagonal.rowwise().squaredNorm();
    auto below = f.lower.block(first + width, first, cols - first - width, width);
    diagonal.triangularView<Eigen::Lower>().solveInPlace<Eigen::OnTheRight>(below);
  }
  return f;
}

// Columns of a step: whole blocks, at least kLeastWidth where they divide the row.
size_t WidthOf(size_t block, size_t cols) {
  const size_t width = (std::max(block, kLeastWidth) + block - 1) / block * block;
  return cols % width == 0 ? width : block;
}

// What block `first` of rows of errors adds to their e H e^T, with the damping; the columns after it are as they are.
template <class Errors>
Eigen::VectorXd BlockError(const Factors& f, const Errors& fed_back, Index first) {
  const Index width = fed_back.cols();
  return (fed_back * f.lower.block(first, first, width, width).template triangularView<Eigen::Lower>())
      .rowwise().squaredNorm().template cast<double>();
}

// Rows of errors whose e H e^T, without the damping, is below the row's `limit`. A sum that is past it already ends the
// work on its row: most are after a few of the last columns, which are also those with the least work.
std::vector<size_t> RowsBelow(const Factors& f, Matrix& error, Index width, const Eigen::VectorXd& limit) {
  const Index cols = error.cols();
  std::vector<size_t> rows(size_t(error.rows()));
  std::iota(rows.begin(), rows.end(), size_t{0});
  Eigen::VectorXd room = limit + f.added * error.rowwise().squaredNorm().cast<double>();
  for (Index first = cols; first != 0 && !rows.empty();) {
    first -= width;
    const Index after = first + width, rest = cols - after, count = Index(rows.size());
    Matrix fed_back = error.block(0, first, count, width);
    if (rest != 0)
      fed_back.noalias() += error.block(0, after, count, rest) * f.lower.block(after, first, rest, width);
    room.head(count) -= BlockError(f, fed_back, first);
    size_t kept = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
      if (!(room[Index(r)] > 0)) continue;
      if (kept != r) error.row(Index(kept)) = error.row(Index(r)), room[Index(kept)] = room[Index(r)];
      rows[kept++] = rows[r];
    }
    rows.resize(kept);
  }
  return rows;
}

// From the last columns to the first, tile by tile of rows. load(first row, rows, out) gives the weights;
// encode(first row, rows, first column, wanted, importance, decoded) encodes rows x width of them, and decodes them
// again. Where what is fed back meets few levels it can add up to more than it saves: plain(first row, rows, weights,
// importance, decoded) encodes whole rows for the diagonal of H alone, and returns what stores row r of them; of the
// two results the better one of each row stays.
template <class Load, class Encode, class Plain>
void FeedBack(size_t rows, size_t cols, size_t width, const float* hessian, float damping, const Load& load,
              const Encode& encode, const Plain& plain) {
  if (!(damping >= 0) || !std::isfinite(damping)) Fail("a damping of ", damping);
  const Factors f = Factorize(hessian, Index(cols), Index(width), damping);
  ParallelFor(rows, kTileRows, [&](size_t begin, size_t end) {
    const size_t count = end - begin;
    Matrix error(count, cols), wanted(count, width),
        decoded(count, width);  // error: W, and from the last columns on W - Q
    Eigen::VectorXd sum = Eigen::VectorXd::Zero(Index(count));
    load(begin, count, error.data());
    for (size_t first = cols; first != 0;) {
      first -= width;
      const Index after = Index(first + width), rest = Index(cols) - after;
      auto own = error.middleCols(Index(first), Index(width));
      wanted = own;
      if (rest != 0) wanted.noalias() += error.rightCols(rest) * f.lower.block(after, Index(first), rest, Index(width));
      encode(begin, count, first, wanted.data(), f.weight.data() + first, decoded.data());
      own -= decoded;
      wanted -= decoded;
      sum += BlockError(f, wanted, Index(first));
    }
    sum -= f.added * error.rowwise().squaredNorm().cast<double>();
    load(begin, count, error.data());
    Matrix other(count, cols);
    const auto store = plain(begin, count, error.data(), f.plain.data(), other.data());
    error -= other;
    for (const size_t r : RowsBelow(f, error, Index(width), sum)) store(r);
  });
}

// Rows encoded in a run-time format, into memory of their own.
class Encoded {
 public:
  Encoded(const Scheme& s, const float* x, size_t rows, size_t cols, const float* importance, Effort effort,
          float* decoded)
      : memory_(s, rows, cols) {
    SchemeOptions options;
    options.effort = effort;
    options.importance = importance;
    QuantizeScheme(s, x, rows, cols, options, memory_.arrays, nullptr);
    DequantizeScheme(memory_.view, 0, rows, decoded);
  }
  const uint8_t* bytes() const { return memory_.bytes[int(Part::kCode)].data(); }  // of blocks
  // Of planes with one level of scales: rows [first, first + count), to rows of `stride` codes and `groups` scales.
  void Read(size_t first, size_t count, uint8_t* codes, size_t stride, float* scale, float* shift,
            size_t groups) const {
    ReadCodes(memory_.view, first, count, codes, stride);
    ScaleReader scales(memory_.view);
    for (size_t r = 0; r < count; ++r) scales.Read(first + r, scale + r * groups, shift + r * groups, nullptr);
  }

 private:
  SchemeMemory memory_;
};

// R^T H R for rotated weights.
Matrix RotatedHessian(const Hadamard& rotation, const float* hessian, size_t cols) {
  Matrix h = Eigen::Map<const Matrix>(hessian, Index(cols), Index(cols));
  for (int turn = 0; turn < 2; ++turn) {
    ParallelFor(cols, 16, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) rotation.Forward(h.data() + r * cols);
    });
    h.transposeInPlace();
  }
  return h;
}

}  // namespace

void QuantizeLdlq(const TensorView& w, FormatId to, const float* hessian, float damping, const QuantizeOptions& options,
                  uint8_t* out) {
  if (!CanQuantize(to)) Fail("weights cannot be encoded as ", NameOf(to), " yet");
  const size_t n = size_t(BlockOf(to).n), out_bytes = RowBytes(to, w.cols), in_bytes = RowBytes(w.format, w.cols);
  if (w.rows == 0 || w.cols == 0) return;
  const size_t width = WidthOf(n, w.cols), step_bytes = RowBytes(to, width);
  const auto load = [&](size_t row, size_t rows, float* to_rows) {
    DequantizeBlocks(w.format, w.data + row * in_bytes, rows * w.cols / size_t(BlockOf(w.format).n), to_rows);
  };
  FeedBack(w.rows, w.cols, width, hessian, damping, load,
           [&](size_t row, size_t rows, size_t col, const float* wanted, const float* importance, float* decoded) {
    std::vector<uint8_t> encoded(rows * step_bytes);
    QuantizeOptions step = options;
    step.first_row = options.first_row + row;
    step.order = nullptr;
    step.importance = importance;
    Quantize({FormatId::kF32, reinterpret_cast<const uint8_t*>(wanted), rows, width}, to, step, encoded.data());
    DequantizeBlocks(to, encoded.data(), rows * width / n, decoded);
    for (size_t r = 0; r < rows; ++r)
      std::memcpy(out + (row + r) * out_bytes + col / n * size_t(BlockOf(to).bytes), &encoded[r * step_bytes],
                  step_bytes);
  }, [&](size_t row, size_t rows, const float* weights, const float* importance, float* decoded) {
    std::vector<uint8_t> encoded(rows * out_bytes);
    QuantizeOptions whole = options;
    whole.first_row = options.first_row + row;
    whole.order = nullptr;
    whole.importance = importance;
    Quantize({FormatId::kF32, reinterpret_cast<const uint8_t*>(weights), rows, w.cols}, to, whole, encoded.data());
    DequantizeBlocks(to, encoded.data(), rows * w.cols / n, decoded);
    return [&, row, encoded = std::move(encoded)](size_t r) {
      std::memcpy(out + (row + r) * out_bytes, &encoded[r * out_bytes], out_bytes);
    };
  });
}

void QuantizeSchemeLdlq(const Scheme& s, const float* x, size_t rows, size_t cols, const float* hessian, float damping,
                        Effort effort, const SchemeArrays<uint8_t>& arrays, std::vector<float>* table) {
  CheckFits(s, rows, cols);
  const bool blocks = s.interleaved;
  const size_t block = size_t(blocks ? s.block : s.group);
  if (!blocks && (s.group <= 0 || s.group_rows != 1 || s.super.present() || s.dim > 1 || cols % block != 0))
    Fail("format '", s.name,
         "': error feedback goes from one group of columns to the next, but its scales are not each a group's own");
  Scheme step = s;  // of some columns: what is learned stays the same for all
  step.transform = {};
  Matrix h;
  std::vector<float> rotated;
  if (s.transform.hadamard) {
    const Hadamard rotation(s.transform, cols, s.name);
    h = RotatedHessian(rotation, hessian, cols);
    hessian = h.data();
    rotated = RotatedRows(s, x, rows, cols);
    x = rotated.data();
  }
  if (s.learned) {
    std::vector<float> diagonal(cols);
    for (size_t c = 0; c < cols; ++c) {  // what is no second moment is found later
      const float moment = hessian[c * cols + c];
      diagonal[c] = moment > 0 && std::isfinite(moment) ? moment : 0;
    }
    SchemeOptions options;
    options.effort = effort;
    options.importance = diagonal.data();
    *table = LearnSchemeTable(step, x, rows, cols, options);
    step.learned = false;
    step.table = *table;
  }
  const size_t width = WidthOf(block, cols), groups = cols / block, step_groups = width / block;
  const size_t step_bytes = blocks ? ArrayOf(step, Part::kCode, 1, width).inner : 0,
               row_bytes = step_bytes * (cols / width);
  std::vector<uint8_t> codes(blocks ? 0 : rows * cols);  // of planes
  std::vector<float> scale(blocks ? 0 : rows * groups), shift(scale.size());
  const auto load = [&](size_t row, size_t count, float* to) { std::copy_n(x + row * cols, count * cols, to); };
  FeedBack(rows, cols, width, hessian, damping, load,
           [&](size_t row, size_t count, size_t col, const float* wanted, const float* importance, float* decoded) {
    const Encoded own(step, wanted, count, width, importance, effort, decoded);
    if (!blocks) {
      const size_t at = row * groups + col / width * step_groups;
      return own.Read(0, count, &codes[row * cols + col], cols, &scale[at], &shift[at], groups);
    }
    for (size_t r = 0; r < count; ++r)
      std::memcpy(arrays[Part::kCode] + (row + r) * row_bytes + col / width * step_bytes, own.bytes() + r * step_bytes,
                  step_bytes);
  }, [&](size_t row, size_t count, const float* weights, const float* importance, float* decoded) {
    return [&, row, own = Encoded(step, weights, count, cols, importance, effort, decoded)](size_t r) {
      const size_t to = row + r, at = to * groups;
      if (blocks) std::memcpy(arrays[Part::kCode] + to * row_bytes, own.bytes() + r * row_bytes, row_bytes);
      else own.Read(r, 1, &codes[to * cols], cols, &scale[at], &shift[at], groups);
    };
  });
  if (!blocks) WriteScheme(step, codes.data(), scale.data(), shift.data(), rows, cols, arrays);
}

}  // namespace edgequant
