// Encoding.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "algo/ldlq.h"
#include "algo/quantize.h"
#include "bind/bind.h"
#include "bind/call.h"
#include "bind/error_dict.h"
#include "bind/files.h"

namespace edgequant {
namespace py = pybind11;
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

constexpr size_t kSlice = size_t{1} << 22;  // weights between two looks at signals: at most some tens of milliseconds

Effort EffortNamed(const std::string& name) {
  if (name == "fast") return Effort::kFast;
  if (name == "default") return Effort::kDefault;
  if (name == "best") return Effort::kBest;
  Fail("the effort is fast, default or best, not '", name, "'");
}
Objective ObjectiveNamed(const std::string& name) {
  if (name == "ggml") return Objective::kGgml;
  if (name == "plain") return Objective::kPlain;
  Fail("the objective is ggml or plain, not '", name, "'");
}

py::tuple PyQuantize(const py::object& data, const std::string& source, size_t rows, size_t cols, const std::string& to,
                     const std::optional<Floats>& importance, const std::string& effort, const std::string& objective,
                     bool stats) {
  const Bytes bytes(data);
  const TensorView w = ViewOf(bytes, source, rows, cols);
  const FormatId id = FormatNamed(to);
  if (importance && size_t(importance->size()) != cols)
    Fail("the importance has ", importance->size(), " numbers, but there are ", cols, " columns");
  QuantizeOptions options;
  options.importance = importance ? importance->data() : nullptr;
  options.effort = EffortNamed(effort);
  options.objective = ObjectiveNamed(objective);
  const size_t out_bytes = RowBytes(id, cols);
  py::array_t<uint8_t> out({rows, out_bytes});
  uint8_t* at = out.mutable_data();
  ErrorStats sum;
  ForSlices(rows, cols, kSlice, [&](size_t begin, size_t count) {
    options.first_row = begin;
    Quantize(RowsOf(w, begin, count), id, options, at + begin * out_bytes, stats ? &sum : nullptr);
  });
  if (!stats) return py::make_tuple(out, py::none());
  return py::make_tuple(out, DictOf(sum));
}

py::array_t<uint8_t> PyQuantizeLdlq(const py::object& data, const std::string& source, size_t rows, size_t cols,
                                    const std::string& to, const Floats& hessian, float damping,
                                    const std::string& effort) {
  const Bytes bytes(data);
  const TensorView w = ViewOf(bytes, source, rows, cols);
  const FormatId id = FormatNamed(to);
  if (hessian.ndim() != 2 || size_t(hessian.shape(0)) != cols || size_t(hessian.shape(1)) != cols)
    Fail("the Hessian must be ", cols, " x ", cols, " numbers");
  QuantizeOptions options;
  options.effort = EffortNamed(effort);
  options.objective = Objective::kPlain;
  py::array_t<uint8_t> out({rows, RowBytes(id, cols)});
  uint8_t* at = out.mutable_data();
  const float* h = hessian.data();
  const py::gil_scoped_release unlocked;
  QuantizeLdlq(w, id, h, damping, options, at);
  return out;
}

py::array_t<uint8_t> PyReadAndFill(const py::object& data, const std::string& source, size_t rows, size_t cols,
                                   size_t row_bytes) {
  const Bytes bytes(data);
  const TensorView w = ViewOf(bytes, source, rows, cols);
  py::array_t<uint8_t> out({rows, row_bytes});
  uint8_t* at = out.mutable_data();
  ForSlices(rows, cols, kSlice, [&](size_t begin, size_t count) {
    ReadAndFill(RowsOf(w, begin, count), row_bytes, at + begin * row_bytes);
  });
  return out;
}

using Rows = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// Source row of each row; empty for no order.
std::vector<size_t> OrderOf(const std::optional<Rows>& order, size_t rows) {
  std::vector<size_t> result;
  if (!order) return result;
  if (size_t(order->size()) != rows) Fail("the order has ", order->size(), " numbers, but there are ", rows, " rows");
  for (size_t i = 0; i < rows; ++i) {
    const int64_t row = order->data()[i];
    if (row < 0 || size_t(row) >= rows) Fail("the order names row ", row, " of ", rows);
    result.push_back(size_t(row));
  }
  return result;
}

// Equal parts of the rows that have an importance vector each: the experts of a stacked tensor.
size_t PartsOf(const std::optional<Floats>& importance, size_t rows, size_t cols) {
  if (!importance) return 1;
  const size_t parts = cols != 0 ? size_t(importance->size()) / cols : 0;
  if (parts == 0 || size_t(importance->size()) != parts * cols || rows % parts != 0)
    Fail("the importance has ", importance->size(), " numbers, but there are ", rows, " rows of ", cols, " columns");
  return parts;
}

// Encodes a tensor straight into a file; the memory of a mapped source is given back.
py::dict PyQuantizeTo(PyWriter& writer, size_t index, const py::object& data, const std::string& source, size_t rows,
                      size_t cols, const std::string& to, const std::optional<Rows>& order,
                      const std::optional<Floats>& importance, const std::string& effort,
                      const std::string& objective) {
  const Bytes bytes(data);
  const TensorView w = ViewOf(bytes, source, rows, cols);
  const FormatId id = FormatNamed(to);
  const size_t parts = PartsOf(importance, rows, cols);
  const std::vector<size_t> rows_of = OrderOf(order, rows);
  if (order && parts != 1) Fail("rows of several parts cannot be put in order");
  const size_t out_bytes = RowBytes(id, cols), part_rows = rows / parts;
  GgufWriter& file = writer.Open();
  file.Begin(index, uint64_t(rows) * out_bytes);
  ErrorStats sum;
  try {
    for (size_t part = 0; part < parts; ++part) {
      const TensorView p = RowsOf(w, part * part_rows, part_rows);
      QuantizeOptions options;
      options.importance = importance ? importance->data() + part * cols : nullptr;
      options.effort = EffortNamed(effort);
      options.objective = ObjectiveNamed(objective);
      ForSlices(part_rows, cols, kSlice, [&](size_t begin, size_t count) {
        const size_t first = part * part_rows + begin;
        options.first_row = first;
        options.order = order ? rows_of.data() + begin : nullptr;
        const TensorView slice = order ? TensorView{p.format, p.data, count, cols} : RowsOf(p, begin, count);
        const RowSink sink = [&](size_t row, size_t n, const uint8_t* encoded) {
          file.WritePart(index, uint64_t(first + row) * out_bytes, encoded, n * out_bytes);
        };
        Quantize(slice, id, options, sink, &sum);
      });
    }
    file.End(index);
    if (py::isinstance<PyTensor>(data)) writer.Release(data.cast<const PyTensor&>());
  } catch (...) {
    file.Abort(index);
    throw;
  }
  return DictOf(sum);
}

bool PyCanQuantize(const std::string& name) { return CanQuantize(FormatNamed(name)); }

}  // namespace

void BindAlgo(py::module_& m) {
  m.def("quantize", &PyQuantize, py::arg("data"), py::arg("source"), py::arg("rows"), py::arg("cols"), py::arg("to"),
        py::arg("importance") = py::none(), py::arg("effort") = "default", py::arg("objective") = "ggml",
        py::arg("stats") = false,
        "Encode rows x cols weights held in `data` as `source`: the bytes, one row each, and the error sums if asked "
        "for.");
  m.def("read_and_fill", &PyReadAndFill, py::arg("data"), py::arg("source"), py::arg("rows"), py::arg("cols"),
        py::arg("row_bytes"),
        "For benchmarks: read the weights and fill rows of `row_bytes` new bytes, on all threads, as quantize does.");
  m.def("quantize_ldlq", &PyQuantizeLdlq, py::arg("data"), py::arg("source"), py::arg("rows"), py::arg("cols"),
        py::arg("to"), py::arg("hessian"), py::arg("damping") = 0.01f, py::arg("effort") = "default",
        "Encode with error feedback for inputs of the second moments `hessian` (cols, cols).");
  m.def("quantize_to", &PyQuantizeTo, py::arg("writer"), py::arg("index"), py::arg("data"), py::arg("source"),
        py::arg("rows"), py::arg("cols"), py::arg("to"), py::arg("order") = py::none(),
        py::arg("importance") = py::none(), py::arg("effort") = "default", py::arg("objective") = "ggml",
        "Encode into tensor `index` of a GgufWriter, its row i from row order[i]: the error sums.");
  m.def("can_quantize", &PyCanQuantize, py::arg("name"), "True if quantize can write the format.");
}

}  // namespace edgequant
