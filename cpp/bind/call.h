// What the bound functions share: bytes from any buffer, format names, long calls that Ctrl-C can end.
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "op/tensor.h"

namespace edgequant {

// The bytes of any object with a C-contiguous buffer (read-only is enough), held while this lives.
class Bytes {
 public:
  explicit Bytes(const pybind11::object& owner) {
    if (PyObject_GetBuffer(owner.ptr(), &view_, PyBUF_C_CONTIGUOUS) != 0) throw pybind11::error_already_set();
  }
  ~Bytes() { PyBuffer_Release(&view_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  const uint8_t* data() const { return static_cast<const uint8_t*>(view_.buf); }
  size_t size() const { return size_t(view_.len); }

 private:
  Py_buffer view_;
};

inline FormatId FormatNamed(const std::string& name) {
  FormatId id;
  if (!FindFormat(name, &id)) Fail("there is no format named '", name, "'");
  return id;
}

// The bytes as rows x cols weights; throws unless they are exactly as many as that takes.
inline TensorView ViewOf(const Bytes& bytes, const std::string& format, size_t rows, size_t cols) {
  const FormatId id = FormatNamed(format);
  const size_t row_bytes = RowBytes(id, cols);
  size_t needed;
  if (__builtin_mul_overflow(rows, row_bytes, &needed) || bytes.size() != needed)
    Fail(rows, " x ", cols, " weights in ", format, " take ", row_bytes, " bytes a row, but there are ", bytes.size(),
         " bytes in all");
  return {id, bytes.data(), rows, cols};
}

// The same matrix from row `begin` on, `count` rows.
inline TensorView RowsOf(const TensorView& m, size_t begin, size_t count) {
  return {m.format, m.data + begin * RowBytes(m.format, m.cols), count, m.cols};
}

// Calls body(begin, count) for slices of the rows without the interpreter lock; between two slices Python may raise
// KeyboardInterrupt. A slice is as many rows as hold about `weights` weights.
template <class Body>
void ForSlices(size_t rows, size_t cols, size_t weights, const Body& body) {
  const size_t step = std::max<size_t>(1, weights / std::max<size_t>(1, cols));
  for (size_t begin = 0; begin < rows; begin += step) {
    {
      const pybind11::gil_scoped_release unlocked;
      body(begin, std::min(step, rows - begin));
    }
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
  }
}

}  // namespace edgequant
