#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <memory>

#include "bind/bind.h"
#include "bind/call.h"
#include "bind/gguf_metadata.h"
#include "core/error.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace py = pybind11;

namespace edgequant {
namespace {

using Path = std::filesystem::path;

// A tensor of an open file, which it keeps mapped.
struct PyTensor {
  StoredTensor tensor;
  std::shared_ptr<const MappedFile> file;

  py::tuple Shape() const {
    py::tuple shape(tensor.shape.size());
    for (size_t i = 0; i < tensor.shape.size(); ++i) shape[i] = py::int_(tensor.shape[i]);
    return shape;
  }

  py::array Data() const {
    const auto* keep = new std::shared_ptr<const MappedFile>(file);
    const py::capsule owner(keep, [](void* p) { delete static_cast<const std::shared_ptr<const MappedFile>*>(p); });
    static const uint8_t nothing = 0;
    py::array array(py::dtype("|u1"), {py::ssize_t(tensor.size)}, {1}, tensor.size > 0 ? tensor.data : &nothing, owner);
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
  }

  std::string Repr() const {
    return "StoredTensor(" + std::string(py::repr(py::str(tensor.name))) + ", " + tensor.type + ", " + std::string(py::repr(Shape())) + ")";
  }
};

py::list Tensors(const std::vector<StoredTensor>& tensors, const std::shared_ptr<const MappedFile>& file) {
  py::list list(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) list[i] = py::cast(PyTensor{tensors[i], file});
  return list;
}

// Metadata and tensors become Python objects once, when they are first asked for.
template <class File>
struct PyFile {
  std::shared_ptr<const MappedFile> mapped;
  File file;
  py::object metadata, tensors;

  explicit PyFile(const Path& path) : file(Load(path)) { mapped = file.file(); }

  static File Load(const Path& path) {
    py::gil_scoped_release unlocked;
    return File::Open(path.string());
  }
  py::str PathText() const {  // as os.fsdecode
    const std::string& path = mapped->path();
    return py::reinterpret_steal<py::str>(PyUnicode_DecodeFSDefaultAndSize(path.data(), Py_ssize_t(path.size())));
  }
  py::object Tensors() {
    if (!tensors) tensors = edgequant::Tensors(file.tensors(), mapped);
    return tensors;
  }
};

void CheckSignals() {
  py::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

struct PyWriter {
  std::unique_ptr<GgufWriter> writer;

  PyWriter(const Path& path, const py::dict& metadata, const std::vector<std::tuple<std::string, std::vector<uint64_t>, std::string>>& tensors,
           size_t alignment) {
    const GgufMetadata facts = FromPython(metadata);
    std::vector<GgufWriter::Tensor> list;
    for (const auto& [name, shape, type] : tensors) list.push_back({name, shape, type});
    py::gil_scoped_release unlocked;
    writer = std::make_unique<GgufWriter>(path.string(), facts, std::move(list), alignment);
  }
  GgufWriter& Open() {
    if (!writer) Fail("the writer is closed");
    return *writer;
  }
  void Write(size_t index, const py::object& data) {
    GgufWriter& open = Open();
    const Bytes bytes(data);
    py::gil_scoped_release unlocked;
    open.Write(index, bytes.data(), bytes.size(), CheckSignals);
  }
  void Finish() {
    GgufWriter& open = Open();
    py::gil_scoped_release unlocked;
    open.Finish();
  }
};

}  // namespace

void BindIo(py::module_& m) {
  py::class_<PyTensor>(m, "StoredTensor", "A tensor of an open file.")
      .def_property_readonly("name", [](const PyTensor& t) { return t.tensor.name; })
      .def_property_readonly("type", [](const PyTensor& t) { return t.tensor.type; }, "Lower case: 'f32', 'q4_k', 'i64'.")
      .def_property_readonly("shape", &PyTensor::Shape, "Row-major, the outermost dimension first.")
      .def_property_readonly("nbytes", [](const PyTensor& t) { return t.tensor.size; })
      .def_property_readonly("offset", [](const PyTensor& t) { return t.tensor.offset; }, "Of the data, from the start of the file.")
      .def_property_readonly("data", &PyTensor::Data, "The bytes: a read-only uint8 view that keeps the file mapped.")
      .def("__repr__", &PyTensor::Repr);

  using Safetensors = PyFile<SafetensorsFile>;
  py::class_<Safetensors>(m, "SafetensorsFile", "A safetensors file, mapped; Error if any part of it is invalid.")
      .def(py::init<const Path&>(), py::arg("path"))
      .def_property_readonly("path", &Safetensors::PathText)
      .def_property_readonly("metadata", [](Safetensors& f) {
        if (!f.metadata) {
          py::dict facts;
          for (const auto& [key, value] : f.file.metadata()) facts[py::str(key)] = py::str(value);
          f.metadata = facts;
        }
        return f.metadata;
      })
      .def_property_readonly("tensors", &Safetensors::Tensors, "In the order of their bytes.");

  using Gguf = PyFile<GgufFile>;
  py::class_<Gguf>(m, "GgufFile", "A GGUF file, mapped; Error if any part of it is invalid.")
      .def(py::init<const Path&>(), py::arg("path"))
      .def_property_readonly("path", &Gguf::PathText)
      .def_property_readonly("version", [](const Gguf& f) { return f.file.version(); })
      .def_property_readonly("alignment", [](const Gguf& f) { return f.file.alignment(); })
      .def_property_readonly("metadata", [](Gguf& f) {
        if (!f.metadata) f.metadata = ToPython(f.file.metadata());
        return f.metadata;
      })
      .def_property_readonly("tensors", &Gguf::Tensors, "In the file's order.");

  py::class_<PyWriter>(m, "GgufWriter", "A GGUF file that appears at its path when it is finished, and not before.")
      .def(py::init<const Path&, const py::dict&, const std::vector<std::tuple<std::string, std::vector<uint64_t>, std::string>>&, size_t>(),
           py::arg("path"), py::arg("metadata"), py::arg("tensors"), py::arg("alignment") = 0,
           "tensors: (name, shape, type) each; alignment 0: general.alignment of the metadata, or 32.")
      .def_property_readonly("file_size", [](PyWriter& w) { return w.Open().file_size(); })
      .def("write", &PyWriter::Write, py::arg("index"), py::arg("data"), "Writes all bytes of a tensor, once; any thread, any order.")
      .def("finish", &PyWriter::Finish, "Flushes to disk and gives the file its name, replacing an older one.")
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](PyWriter& w, const py::args&) { w.writer.reset(); });
}

}  // namespace edgequant
