// Operations on whole matrices: decode, compare, threads.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>

#include "bind/bind.h"
#include "bind/call.h"
#include "bind/error_dict.h"
#include "core/threads.h"
#include "op/compare.h"
#include "op/dequantize.h"
#include "op/target.h"

namespace edgequant {
namespace py = pybind11;
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

constexpr size_t kSlice = size_t{1} << 26;  // weights between two looks at signals: some tens of milliseconds

py::array NewArray(FormatId type, size_t rows, size_t cols) {
  const char* dtype = type == FormatId::kF32 ? "float32" : type == FormatId::kF16 ? "float16" : "uint16";
  return py::array(py::dtype(dtype), {rows, cols});
}

// A new array, or `out` if it has the right type and shape.
py::array Output(const py::object& out, FormatId type, size_t rows, size_t cols) {
  if (out.is_none()) return NewArray(type, rows, cols);
  const py::array want = NewArray(type, 0, 0);
  if (py::isinstance<py::array>(out)) {
    const py::array a = py::reinterpret_borrow<py::array>(out);
    if (a.dtype().is(want.dtype()) && a.ndim() == 2 && size_t(a.shape(0)) == rows && size_t(a.shape(1)) == cols &&
        (a.flags() & py::array::c_style) != 0 && a.writeable())
      return a;
  }
  Fail("out must be a writable C-contiguous array of ", std::string(py::str(want.dtype())), " with shape (", rows, ", ",
       cols, ")");
}

py::array PyDequantize(const py::object& data, const std::string& format, size_t rows, size_t cols,
                       const std::string& to, const py::object& out) {
  const Bytes bytes(data);
  const TensorView q = ViewOf(bytes, format, rows, cols);
  const FormatId type = FormatNamed(to);
  if (type != FormatId::kF32 && type != FormatId::kF16 && type != FormatId::kBF16)
    Fail("weights are decoded to f32, f16 or bf16, not to ", to);
  py::array result = Output(out, type, rows, cols);
  uint8_t* at = static_cast<uint8_t*>(result.mutable_data());
  ForSlices(rows, cols, kSlice, [&](size_t begin, size_t count) {
    Dequantize(RowsOf(q, begin, count), type, at + begin * RowBytes(type, cols));
  });
  return result;
}

// For benchmarks: a Python call costs more than decoding one row in cache, so it is repeated here. `peer` is
// the address of void (*)(const void* src, float* out, int64_t weights), timed instead of edgequant's own decoder.
double TimeRow(const py::object& row, const std::string& format, size_t cols, int repeats, size_t peer) {
  const Bytes bytes(row);
  const TensorView q = ViewOf(bytes, format, 1, cols);
  const auto other = reinterpret_cast<void (*)(const void*, float*, int64_t)>(peer);
  const std::unique_ptr<float[], decltype(&free)> out(static_cast<float*>(aligned_alloc(64, (cols + 15) / 16 * 64)),
                                                      &free);
  const auto begin = std::chrono::steady_clock::now();
  for (int k = 0; k < repeats; ++k) {
    if (other)
      other(q.data, out.get(), int64_t(cols));
    else
      DequantizeRow(q.format, q.data, cols, out.get());
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / repeats;
}

py::dict PyCompare(const py::object& a, const std::string& a_format, const py::object& b, const std::string& b_format,
                   size_t rows, size_t cols, const std::optional<Floats>& importance) {
  const Bytes a_bytes(a), b_bytes(b);
  const TensorView x = ViewOf(a_bytes, a_format, rows, cols), y = ViewOf(b_bytes, b_format, rows, cols);
  if (importance && size_t(importance->size()) != cols)
    Fail("the importance has ", importance->size(), " numbers, but there are ", cols, " columns");
  const float* w = importance ? importance->data() : nullptr;
  ErrorStats sum;
  ForSlices(rows, cols, kSlice,
            [&](size_t begin, size_t count) { sum += Compare(RowsOf(x, begin, count), RowsOf(y, begin, count), w); });
  return DictOf(sum);
}

}  // namespace

void BindOp(py::module_& m) {
  m.def("dequantize", &PyDequantize, py::arg("data"), py::arg("format"), py::arg("rows"), py::arg("cols"),
        py::arg("to") = "f32", py::arg("out") = py::none(),
        "Decode rows x cols weights to a new float32 (f32), float16 (f16) or uint16 (bf16 bits) array of that shape, "
        "or to `out`.");
  m.def("compare", &PyCompare, py::arg("a"), py::arg("a_format"), py::arg("b"), py::arg("b_format"), py::arg("rows"),
        py::arg("cols"), py::arg("importance") = py::none(),
        "Sums over all weights of the reference a against b, in double, as a dict.");
  m.def("time_row", &TimeRow, py::arg("row"), py::arg("format"), py::arg("cols"), py::arg("repeats"),
        py::arg("peer") = 0,
        "Seconds to decode one row to float32 on this thread, the mean of `repeats`; for benchmarks.");
  m.def("set_num_threads", &SetNumThreads, py::arg("n"),
        "Threads for all later calls; 0 means all cores of this process.");
  m.def("num_threads", &NumThreads, "Threads in use.");
  m.def(
      "share_openmp",
      [](uintptr_t parallel, uintptr_t max_threads) {
        ShareOpenMp(reinterpret_cast<OpenMpParallel>(parallel), reinterpret_cast<OpenMpMaxThreads>(max_threads));
      },
      py::arg("parallel"), py::arg("max_threads"),
      "Run on the workers of the OpenMP library whose GOMP_parallel and omp_get_max_threads have these addresses, "
      "where "
      "it is set to as many threads; 0: on threads of our own.");
  m.def("simd_target", &SimdTarget, "The instruction set in use, such as AVX3_DL.");
  m.def("simd_targets", &SimdTargets, "All instruction sets that this machine could use, the best first.");
  m.def("use_simd_target", &UseSimdTarget, py::arg("name"),
        "Use one of simd_targets(), or the best for \"\"; for tests.");
}

}  // namespace edgequant
