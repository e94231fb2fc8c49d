// Open files as Python objects.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bind/call.h"
#include "core/error.h"
#include "io/gguf.h"
#include "io/mmap.h"

namespace edgequant {

// A tensor of an open file, which it keeps mapped.
struct PyTensor {
  StoredTensor tensor;
  std::shared_ptr<const MappedFile> file;

  const uint8_t* data() const {  // never null
    static const uint8_t nothing = 0;
    return tensor.size > 0 ? tensor.data : &nothing;
  }
  pybind11::tuple Shape() const {
    pybind11::tuple shape(tensor.shape.size());
    for (size_t i = 0; i < tensor.shape.size(); ++i) shape[i] = pybind11::int_(tensor.shape[i]);
    return shape;
  }
  pybind11::array Data() const {
    const auto* keep = new std::shared_ptr<const MappedFile>(file);
    const pybind11::capsule owner(keep,
                                  [](void* p) { delete static_cast<const std::shared_ptr<const MappedFile>*>(p); });
    pybind11::array array(pybind11::dtype("|u1"), {pybind11::ssize_t(tensor.size)}, {1}, data(), owner);
    pybind11::detail::array_proxy(array.ptr())->flags &= ~pybind11::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
  }
  std::string Repr() const {
    namespace py = pybind11;
    return "StoredTensor(" + std::string(py::repr(py::str(tensor.name))) + ", " + tensor.type + ", " +
           std::string(py::repr(Shape())) + ")";
  }
};

struct PyWriter {
  std::unique_ptr<GgufWriter> writer;

  explicit PyWriter(std::unique_ptr<GgufWriter> w) : writer(std::move(w)) {}
  GgufWriter& Open() {
    if (!writer) Fail("the writer is closed");
    return *writer;
  }
  void Write(size_t index, const pybind11::object& data) {
    GgufWriter& open = Open();
    const Bytes bytes(data);
    const pybind11::gil_scoped_release unlocked;
    open.Write(index, bytes.data(), bytes.size(), [] {
      const pybind11::gil_scoped_acquire locked;
      if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    });
  }
  void Finish() {
    GgufWriter& open = Open();
    const pybind11::gil_scoped_release unlocked;
    open.Finish();
  }

  // Gives the memory of a source that has been written back to the system; some at a time, as each time interrupts the
  // other cores.
  void Release(const PyTensor& source) {
    done.push_back(source);
    done_bytes += source.tensor.size;
    if (done_bytes >= size_t{16} << 20) ForgetDone();
  }
  void ForgetDone() {
    std::sort(done.begin(), done.end(), [](const PyTensor& a, const PyTensor& b) { return a.data() < b.data(); });
    for (size_t first = 0; first < done.size();) {  // neighbours in one call
      const uint8_t* end = done[first].data() + done[first].tensor.size;
      size_t next = first + 1;
      for (; next < done.size() && done[next].data() - end <= 4096 && done[next].file == done[first].file; ++next)
        end = done[next].data() + done[next].tensor.size;
      done[first].file->Forget(done[first].data(), size_t(end - done[first].data()));
      first = next;
    }
    done.clear();
    done_bytes = 0;
  }
  std::vector<PyTensor> done;
  size_t done_bytes = 0;
};

}  // namespace edgequant
