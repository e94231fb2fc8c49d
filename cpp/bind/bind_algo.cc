// Encoding.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "algo/quantize.h"
#include "bind/bind.h"
#include "bind/call.h"
#include "bind/error_dict.h"

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
                     const std::optional<Floats>& importance, const std::string& effort, const std::string& objective, bool stats) {
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

bool PyCanQuantize(const std::string& name) { return CanQuantize(FormatNamed(name)); }

}  // namespace

void BindAlgo(py::module_& m) {
  m.def("quantize", &PyQuantize, py::arg("data"), py::arg("source"), py::arg("rows"), py::arg("cols"), py::arg("to"),
        py::arg("importance") = py::none(), py::arg("effort") = "default", py::arg("objective") = "ggml", py::arg("stats") = false,
        "Encode rows x cols weights held in `data` as `source`: the bytes, one row each, and the error sums if asked for.");
  m.def("can_quantize", &PyCanQuantize, py::arg("name"), "True if quantize can write the format.");
}

}  // namespace edgequant
