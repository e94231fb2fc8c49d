#include "algo/ldlq.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/threads.h"
#include "format/shape.h"
#include "kernels/cpu/dequantize.h"

namespace edgequant {
namespace {

using Eigen::Index;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr size_t kTileRows = 64;     // rows that share one pass over L
constexpr size_t kLeastWidth = 32;   // columns per step: smaller blocks go several at a time

// H = L D L^T with blocks of `width` columns.
struct Factors {
  Matrix lower;               // L below its diagonal blocks
  std::vector<float> weight;  // the diagonal of D
};

Factors Factorize(const float* hessian, Index cols, Index width, float damping) {
  Factors f;
  f.lower = Eigen::Map<const Matrix>(hessian, cols, cols);
  for (Index i = 0; i < cols; ++i)
    for (Index j = 0; j <= i; ++j)
      if (!std::isfinite(f.lower(i, j))) Fail("the Hessian holds ", f.lower(i, j), " at row ", i, ", column ", j);
  const float mean = f.lower.diagonal().mean();
  if (f.lower.diagonal().minCoeff() < 0) Fail("the Hessian is not positive semi-definite: a number on its diagonal is negative");
  f.lower.diagonal().array() += mean > 0 ? mean * damping : 1.0f;
  const Eigen::LLT<Eigen::Ref<Matrix>> in_place(f.lower);  // the lower triangle becomes C, H = C C^T
  if (in_place.info() != Eigen::Success) Fail("the Hessian is not positive definite; a larger damping than ", damping, " helps");
  f.weight.resize(size_t(cols));
  for (Index first = 0; first < cols; first += width) {
    const Matrix diagonal = f.lower.block(first, first, width, width).triangularView<Eigen::Lower>();
    Eigen::Map<Eigen::VectorXf>(f.weight.data() + first, width) = diagonal.rowwise().squaredNorm();
    auto below = f.lower.block(first + width, first, cols - first - width, width);
    diagonal.triangularView<Eigen::Lower>().solveInPlace<Eigen::OnTheRight>(below);
  }
  return f;
}

}  // namespace

void QuantizeLdlq(const TensorView& w, FormatId to, const float* hessian, float damping, const QuantizeOptions& options,
                  uint8_t* out) {
  if (!CanQuantize(to)) Fail("weights cannot be encoded as ", NameOf(to), " yet");
  const size_t n = size_t(BlockOf(to).n), out_bytes = RowBytes(to, w.cols), in_bytes = RowBytes(w.format, w.cols);
  if (!(damping >= 0) || !std::isfinite(damping)) Fail("a damping of ", damping);
  if (w.rows == 0 || w.cols == 0) return;
  size_t width = std::max(n, kLeastWidth);
  if (w.cols % width != 0) width = n;
  const size_t step_bytes = RowBytes(to, width);
  const Factors f = Factorize(hessian, Index(w.cols), Index(width), damping);
  ParallelFor(w.rows, kTileRows, [&](size_t begin, size_t end) {
    const size_t rows = end - begin;
    Matrix error(rows, w.cols), wanted(rows, width), decoded(rows, width);  // error: W, and from the last columns on W - Q
    DequantizeBlocks(w.format, w.data + begin * in_bytes, rows * w.cols / size_t(BlockOf(w.format).n), error.data());
    std::vector<uint8_t> encoded(rows * step_bytes);
    QuantizeOptions step = options;
    step.first_row = options.first_row + begin;
    step.order = nullptr;
    for (size_t first = w.cols; first != 0;) {
      first -= width;
      const Index after = Index(first + width), rest = Index(w.cols) - after;
      auto own = error.middleCols(Index(first), Index(width));
      wanted = own;
      if (rest != 0) wanted.noalias() += error.rightCols(rest) * f.lower.block(after, Index(first), rest, Index(width));
      step.importance = f.weight.data() + first;
      Quantize({FormatId::kF32, reinterpret_cast<const uint8_t*>(wanted.data()), rows, width}, to, step, encoded.data());
      DequantizeBlocks(to, encoded.data(), rows * width / n, decoded.data());
      own -= decoded;
      for (size_t r = 0; r < rows; ++r)
        std::memcpy(out + (begin + r) * out_bytes + first / n * size_t(BlockOf(to).bytes), encoded.data() + r * step_bytes, step_bytes);
    }
  });
}

}  // namespace edgequant
