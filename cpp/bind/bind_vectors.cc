// Formats that are no plain planes of codes: vectors of weights from a grid or from codebooks, and BitNet's tiles.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "algo/e8p.h"
#include "bind/bind.h"
#include "bind/call.h"
#include "op/lut_tiles.h"
#include "op/vectors.h"

namespace edgequant {
namespace py = pybind11;
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

Effort EffortNamed(const std::string& name) {
  if (name == "fast") return Effort::kFast;
  if (name == "default") return Effort::kDefault;
  if (name == "best") return Effort::kBest;
  Fail("the effort is fast, default or best, not '", name, "'");
}

template <class T>
Array<T> Matrix(size_t rows, size_t cols) {
  return Array<T>({rows, cols});
}

py::tuple PyEncodeE8P(const Array<float>& w, const std::optional<Array<float>>& importance, const std::string& effort) {
  if (w.ndim() != 2) Fail("expected a matrix of weights");
  const size_t rows = size_t(w.shape(0)), cols = size_t(w.shape(1));
  if (importance && size_t(importance->size()) != cols)
    Fail("the importance has ", importance->size(), " numbers, but there are ", cols, " columns");
  const float* weights = importance ? importance->data() : nullptr;
  const Effort how = EffortNamed(effort);
  Array<uint64_t> words = Matrix<uint64_t>(rows, cols / 32);
  uint64_t* out = words.mutable_data();
  float scale;
  {
    const py::gil_scoped_release unlocked;
    scale = EncodeE8P(w.data(), rows, cols, weights, how, out);
  }
  return py::make_tuple(words, scale);
}

Array<float> PyDecodeE8P(const Array<uint64_t>& words, float scale, size_t rows, size_t cols) {
  if (size_t(words.size()) != rows * cols / 32)
    Fail(rows, " x ", cols, " E8P weights take ", rows * cols / 32, " words");
  Array<float> out = Matrix<float>(rows, cols);
  float* to = out.mutable_data();
  const py::gil_scoped_release unlocked;
  DecodeE8P(words.data(), rows, cols, scale, to);
  return out;
}

AqlmView AqlmOf(const py::array& codes, const Array<float>& codebooks, const Array<float>& scales, size_t rows,
                size_t cols) {
  const size_t bits = size_t(codes.itemsize()) * 8;
  if (codebooks.ndim() != 3 || codebooks.shape(2) != 8 || bits > 16 || size_t(codebooks.shape(1)) != size_t{1} << bits)
    Fail("expected codebooks x 2^", bits, " x 8 numbers");
  const size_t books = size_t(codebooks.shape(0));
  if (!(codes.flags() & py::array::c_style) || size_t(codes.size()) != rows * cols / 8 * books ||
      size_t(scales.size()) != rows)
    Fail(rows, " x ", cols, " AQLM weights take ", rows * cols / 8 * books, " codes and ", rows, " scales");
  return {codes.data(), int(bits), books, codebooks.data(), scales.data()};
}

Array<float> PyDecodeAqlm(const py::array& codes, const Array<float>& codebooks, const Array<float>& scales,
                          size_t rows, size_t cols) {
  const AqlmView view = AqlmOf(codes, codebooks, scales, rows, cols);
  Array<float> out = Matrix<float>(rows, cols);
  float* to = out.mutable_data();
  const py::gil_scoped_release unlocked;
  DecodeAqlm(view, rows, cols, to);
  return out;
}

Panel PyRepackAqlm(const py::array& codes, const Array<float>& codebooks, const Array<float>& scales, size_t rows,
                   size_t cols, const std::string& format) {
  const AqlmView view = AqlmOf(codes, codebooks, scales, rows, cols);
  const py::gil_scoped_release unlocked;
  return RepackAqlm(view, rows, cols, format);
}

bool IsTl2(const std::string& kind) {
  if (kind != "tl1" && kind != "tl2") Fail("the tiles are tl1 or tl2, not '", kind, "'");
  return kind == "tl2";
}

size_t TilesBytes(const std::string& kind, size_t rows, size_t cols, const LutTile& tile) {
  return IsTl2(kind) ? Tl2Bytes(rows, cols, tile) : Tl1Bytes(rows, cols, tile);
}

Array<uint8_t> PyPackTiles(const Array<int8_t>& w, const std::string& kind, size_t bm, size_t bk, size_t bmm) {
  if (w.ndim() != 2) Fail("expected a matrix of -1, 0 and 1");
  const size_t rows = size_t(w.shape(0)), cols = size_t(w.shape(1));
  const LutTile tile{bm, bk, bmm};
  const bool tl2 = IsTl2(kind);
  Array<uint8_t> out(py::ssize_t(TilesBytes(kind, rows, cols, tile)));
  uint8_t* to = out.mutable_data();
  const py::gil_scoped_release unlocked;
  (tl2 ? PackTl2 : PackTl1)(w.data(), rows, cols, tile, to);
  return out;
}

Array<int8_t> PyUnpackTiles(const py::object& data, const std::string& kind, size_t rows, size_t cols, size_t bm,
                            size_t bk, size_t bmm) {
  const Bytes bytes(data);
  const LutTile tile{bm, bk, bmm};
  const bool tl2 = IsTl2(kind);
  const size_t needed = TilesBytes(kind, rows, cols, tile);
  if (bytes.size() != needed)
    Fail(rows, " x ", cols, " weights in ", kind, " take ", needed, " bytes, not ", bytes.size());
  Array<int8_t> out = Matrix<int8_t>(rows, cols);
  int8_t* to = out.mutable_data();
  const py::gil_scoped_release unlocked;
  (tl2 ? UnpackTl2 : UnpackTl1)(bytes.data(), rows, cols, tile, to);
  return out;
}

}  // namespace

void BindVectors(py::module_& m) {
  m.def("encode_e8p", &PyEncodeE8P, py::arg("w"), py::arg("importance"), py::arg("effort"),
        "QuIP#'s words (rows, cols / 32) and their scale, for float32 weights.");
  m.def("decode_e8p", &PyDecodeE8P, py::arg("words"), py::arg("scale"), py::arg("rows"), py::arg("cols"),
        "float32 weights from QuIP#'s words.");
  m.def("decode_aqlm", &PyDecodeAqlm, py::arg("codes"), py::arg("codebooks"), py::arg("scales"), py::arg("rows"),
        py::arg("cols"), "float32 weights from AQLM's codes of 8 or 16 bits and codebooks (books, codes, 8).");
  m.def("repack_aqlm", &PyRepackAqlm, py::arg("codes"), py::arg("codebooks"), py::arg("scales"), py::arg("rows"),
        py::arg("cols"), py::arg("format"),
        "A copy of AQLM's codes and codebooks for products, which decode pieces of rows.");
  m.def("pack_tiles", &PyPackTiles, py::arg("w"), py::arg("kind"), py::arg("bm"), py::arg("bk"), py::arg("bmm"),
        "Bytes of int8 weights -1, 0, 1 in the tiles tl1 or tl2.");
  m.def(
      "tiles_bytes",
      [](const std::string& kind, size_t rows, size_t cols, size_t bm, size_t bk, size_t bmm) {
        return TilesBytes(kind, rows, cols, {bm, bk, bmm});
      },
      py::arg("kind"), py::arg("rows"), py::arg("cols"), py::arg("bm"), py::arg("bk"), py::arg("bmm"),
      "Bytes of rows x cols ternary weights in the tiles tl1 or tl2.");
  m.def("unpack_tiles", &PyUnpackTiles, py::arg("data"), py::arg("kind"), py::arg("rows"), py::arg("cols"),
        py::arg("bm"), py::arg("bk"), py::arg("bmm"), "int8 weights -1, 0, 1 from the tiles tl1 or tl2.");
}

}  // namespace edgequant
