// Weights repacked for matrix products, and the products.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/bind.h"
#include "bind/call.h"
#include "op/matmul.h"

namespace edgequant {
namespace py = pybind11;
namespace {

FormatId NumberType(const std::string& name) {
  const FormatId id = FormatNamed(name);
  if (id != FormatId::kF32 && id != FormatId::kF16 && id != FormatId::kBF16)
    Fail("matmul takes and gives f32, f16 or bf16, not ", name);
  return id;
}

// A 2-dimensional array whose rows are contiguous: numbers of `type`, whatever the array calls them.
struct Rows {
  py::buffer_info info;
  FormatId type;
  Rows(const py::array& a, const std::string& name, bool writable) : info(a.request(writable)), type(NumberType(name)) {
    const ptrdiff_t size = type == FormatId::kF32 ? 4 : 2;
    if (info.ndim != 2 || info.itemsize != size || (info.shape[1] > 1 && info.strides[1] != size))
      Fail("expected a matrix of ", name, " whose rows are contiguous");
  }
};

PanelKind PanelNamed(const std::string& name) {
  if (name != "auto" && name != "compact" && name != "fast")
    Fail("panel is 'auto', 'compact' or 'fast', not '", name, "'");
  return name == "auto" ? PanelKind::kAuto : name == "compact" ? PanelKind::kCompact : PanelKind::kFast;
}

Panel PyRepack(const py::object& data, const std::string& format, size_t rows, size_t cols, const std::string& panel) {
  const Bytes bytes(data);
  const TensorView q = ViewOf(bytes, format, rows, cols);
  const PanelKind kind = PanelNamed(panel);
  const py::gil_scoped_release unlocked;
  return Repack(q, kind);
}

Panel PyViewNumbers(const py::object& data, const std::string& format, size_t rows, size_t cols) {
  const Bytes bytes(data);
  return ViewNumbers(ViewOf(bytes, format, rows, cols));
}

constexpr char kE8P[] = "quip.e8p";

Panel PyRepackE8P(const py::array_t<uint64_t, py::array::c_style>& words, float scale, size_t rows, size_t cols) {
  if (size_t(words.size()) * 32 != rows * cols)
    Fail(rows, " x ", cols, " weights in ", kE8P, " take ", rows * cols / 32, " words, not ", words.size());
  const uint64_t* const from = words.data();
  const py::gil_scoped_release unlocked;
  return RepackE8P(from, rows, cols, scale);
}

bool ChoosesCompact(const std::string& format, PanelKind kind) {
  if (format == kE8P) return ChoosesCompactE8P(kind);
  return format.find('.') == format.npos && ChoosePanel(FormatNamed(format), kind) == PanelKind::kCompact;
}

Compute ComputeNamed(const std::string& name) {
  if (name != "int8" && name != "exact") Fail("compute is 'int8' or 'exact', not '", name, "'");
  return name == "exact" ? Compute::kExact : Compute::kInt8;
}

constexpr size_t kSlice = size_t{1} << 32;  // products between two looks at signals: some tens of milliseconds

using Numbers = std::optional<py::array_t<float, py::array::c_style | py::array::forcecast>>;

const float* PerResult(const Numbers& numbers, const char* name, size_t n) {
  if (!numbers) return nullptr;
  if (size_t(numbers->size()) != n) Fail("the ", name, " has ", numbers->size(), " numbers, not ", n);
  return numbers->data();
}

void PyMatmul(const py::array& x, const std::string& type, const Panel& w, const py::array& out,
              const std::string& out_type, const std::string& compute, const Numbers& bias, const Numbers& scale) {
  const Rows from(x, type, false), to(out, out_type, true);
  const Compute how = ComputeNamed(compute);
  const PerColumn then = {PerResult(scale, "scale", w.rows), PerResult(bias, "bias", w.rows)};
  if (from.info.shape[0] != to.info.shape[0])
    Fail("there are ", from.info.shape[0], " rows, but space for ", to.info.shape[0], " results");
  ForSlices(size_t(from.info.shape[0]), w.rows * w.cols, kSlice, [&](size_t begin, size_t count) {
    const ptrdiff_t stride = from.info.strides[0], to_stride = to.info.strides[0];
    Matmul({from.type, static_cast<const uint8_t*>(from.info.ptr) + ptrdiff_t(begin) * stride, count,
            size_t(from.info.shape[1]), stride},
           w,
           {to.type, static_cast<uint8_t*>(to.info.ptr) + ptrdiff_t(begin) * to_stride, count, size_t(to.info.shape[1]),
            to_stride},
           how, then);
  });
}

void PyMatmulGrouped(const py::array& x, const std::string& type, const std::vector<const Panel*>& experts,
                     const py::array_t<int64_t, py::array::c_style>& index, size_t per_row, const py::array& out,
                     const std::string& out_type, const std::string& compute, const Numbers& bias,
                     const Numbers& scale) {
  const Rows from(x, type, false), to(out, out_type, true);
  const Compute how = ComputeNamed(compute);
  const size_t n = experts.size() * size_t(to.info.shape[1]);
  const PerColumn then = {PerResult(scale, "scale", n), PerResult(bias, "bias", n)};
  if (size_t(index.size()) != size_t(from.info.shape[0]) * per_row || index.size() != to.info.shape[0])
    Fail("there are ", from.info.shape[0], " rows and ", index.size(), " numbers of experts, but space for ",
         to.info.shape[0], " results");
  const int64_t* const numbers = index.data();
  const size_t weights = experts.empty() ? 0 : experts[0]->rows * experts[0]->cols * per_row;
  ForSlices(size_t(from.info.shape[0]), weights, kSlice, [&](size_t begin, size_t count) {
    const ptrdiff_t stride = from.info.strides[0];
    MatmulGrouped({from.type, static_cast<const uint8_t*>(from.info.ptr) + ptrdiff_t(begin) * stride, count,
                   size_t(from.info.shape[1]), stride},
                  experts, numbers + begin * per_row, per_row,
                  {to.type, static_cast<uint8_t*>(to.info.ptr) + ptrdiff_t(begin * per_row) * to.info.strides[0],
                   count * per_row, size_t(to.info.shape[1]), to.info.strides[0]},
                  how, then);
  });
}

// PyMatmul for callers that have addresses of numbers side by side, such as PyTorch: nothing is looked at but the
// names, which saves most of the time of a call.
void PyMatmulAt(const Panel& w, uintptr_t x, const std::string& type, size_t rows, uintptr_t out,
                const std::string& compute, uintptr_t bias) {
  const FormatId id = NumberType(type);
  const Compute how = ComputeNamed(compute);
  const ptrdiff_t size = id == FormatId::kF32 ? 4 : 2, stride = ptrdiff_t(w.inputs()) * size,
                  to_stride = ptrdiff_t(w.rows) * size;
  ForSlices(rows, w.rows * w.cols, kSlice, [&](size_t begin, size_t count) {
    Matmul({id, reinterpret_cast<const uint8_t*>(x) + ptrdiff_t(begin) * stride, count, w.inputs(), stride}, w,
           {id, reinterpret_cast<uint8_t*>(out) + ptrdiff_t(begin) * to_stride, count, w.rows, to_stride}, how,
           {nullptr, reinterpret_cast<const float*>(bias)});
  });
}

}  // namespace

void BindMatmul(py::module_& m) {
  py::class_<Panel>(m, "Panel", "Weights in the layout of matrix products.")
      .def_readonly("rows", &Panel::rows, "Rows of weights, N.")
      .def_property_readonly("cols", &Panel::inputs, "Columns of weights, K.")
      .def_readonly("nbytes", &Panel::bytes, "Bytes that one product reads.")
      .def_property_readonly(
          "format", [](const Panel& p) { return p.format; }, "The format they came from.")
      .def("__repr__", [](const Panel& p) {
        return "<Panel " + p.format + " " + std::to_string(p.rows) + " x " +
               std::to_string(p.inputs()) + ">";
      });
  m.def("repack", &PyRepack, py::arg("data"), py::arg("format"), py::arg("rows"), py::arg("cols"),
        py::arg("panel") = "auto", "Copy rows x cols weights to a Panel of the kind that choose_panel names.");
  m.def("view_numbers", &PyViewNumbers, py::arg("data"), py::arg("format"), py::arg("rows"), py::arg("cols"),
        py::keep_alive<0, 1>(), "f32, f16 or bf16 numbers as products take them: they are read where they lie.");
  m.def("repack_e8p", &PyRepackE8P, py::arg("words"), py::arg("scale"), py::arg("rows"), py::arg("cols"),
        "Copy QuIP#'s words to a compact Panel; cols must be a multiple of 256.");
  m.def(
      "choose_panel",
      [](const std::string& format, const std::string& panel) {
        return ChoosesCompact(format, PanelNamed(panel)) ? "compact" : "fast";
      },
      py::arg("format"), py::arg("panel"),
      "What 'auto', 'compact' or 'fast' means for a format: 'compact' or, where there is one panel only, 'fast'.");
  m.def(
      "set_panel", [](const std::string& panel) { SetPanel(PanelNamed(panel)); }, py::arg("panel"),
      R"(Choose the panel of weights that are rows of a grid (iq1, iq2, iq3, quip.e8p), where a product does not.

What has been multiplied already keeps its panel.

Args:
  panel: "compact" keeps the format's rate in memory, 1.56 to 3.44 bits per weight; "fast" holds codes of single weights,
    2.31 to 4.375 bits; "auto" takes the one that is faster on this machine. Other formats have one panel.

Raises Error for another name.)");
  m.def(
      "copy_to_new_memory",
      [](const py::object& data, size_t nbytes) {
        const Bytes bytes(data);
        auto copy = std::make_unique<SlabBytes>();
        {
          py::gil_scoped_release unlocked;
          *copy = CopyToNewMemory(bytes.data(), bytes.size(), nbytes ? nbytes : bytes.size());
        }
        return py::capsule(copy.release(), [](void* p) { delete static_cast<SlabBytes*>(p); });
      },
      py::arg("data"), py::arg("nbytes") = 0,
      "For benchmarks: copy the bytes to new memory on all threads, as repack does, `nbytes` of them if that is not 0 "
      "(some are read twice then, if there are fewer). Returns what holds the memory.");
  m.def("can_repack", [](const std::string& format) { return CanRepack(FormatNamed(format)); }, py::arg("format"),
        "Whether weights of this format can be repacked.");
  m.def("matmul", &PyMatmul, py::arg("x"), py::arg("type"), py::arg("panel"), py::arg("out"), py::arg("out_type"),
        py::arg("compute"), py::arg("bias") = py::none(), py::arg("scale") = py::none(),
        "out = x * weights^T * scale + bias, for matrices of f32, f16 or bf16 (any 2-byte type) numbers.");
  m.def(
      "matmul_grouped", &PyMatmulGrouped, py::arg("x"), py::arg("type"), py::arg("experts"), py::arg("index"),
      py::arg("per_row"), py::arg("out"), py::arg("out_type"), py::arg("compute"), py::arg("bias") = py::none(),
      py::arg("scale") = py::none(),
      "Row i of out = row i / per_row of x times the weights of Panel experts[index[i]] (times row index[i] of scale, "
      "plus that of bias); index: int64.");
  m.def("matmul_at", &PyMatmulAt, py::arg("panel"), py::arg("x"), py::arg("type"), py::arg("rows"), py::arg("out"),
        py::arg("compute"), py::arg("bias") = 0,
        "matmul on addresses: x (rows, K) and out (rows, N) contiguous numbers of `type`, bias N floats or 0.");
  m.def("read_panel", [](const Panel& w) { py::gil_scoped_release unlocked; ReadPanels(w); }, py::arg("panel"),
        "For benchmarks: read all bytes of the panel on all threads.");
  m.def(
      "multiply_at_peak",
      [](size_t n) {
        py::gil_scoped_release unlocked;
        return MultiplyAtPeak(n);
      },
      py::arg("products"),
      "For benchmarks: multiply bytes in registers on all threads; returns the number of products.");
}

}  // namespace edgequant
