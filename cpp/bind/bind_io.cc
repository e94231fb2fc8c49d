#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <memory>

#include "bind/bind.h"
#include "bind/files.h"
#include "bind/gguf_metadata.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace py = pybind11;

namespace edgequant {
namespace {

using Path = std::filesystem::path;
using TensorList = std::vector<std::tuple<std::string, std::vector<uint64_t>, std::string>>;

std::vector<GgufWriter::Tensor> ListOf(const TensorList& tensors) {
  std::vector<GgufWriter::Tensor> list;
  for (const auto& [name, shape, type] : tensors) list.push_back({name, shape, type});
  return list;
}

std::unique_ptr<PyWriter> MakeWriter(const Path& path, const py::object& metadata, const TensorList& tensors,
                                     size_t alignment) {
  const std::shared_ptr<const GgufMetadata> facts = MetadataFrom(metadata);
  std::vector<GgufWriter::Tensor> list = ListOf(tensors);
  const py::gil_scoped_release unlocked;
  return std::make_unique<PyWriter>(std::make_unique<GgufWriter>(path.string(), *facts, std::move(list), alignment));
}

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

}  // namespace

void BindIo(py::module_& m) {
  py::class_<PyTensor>(m, "StoredTensor", "A tensor of an open file, and a buffer of its bytes.", py::buffer_protocol())
      .def_buffer([](const PyTensor& t) {
        return py::buffer_info(const_cast<uint8_t*>(t.data()), 1, "B", 1, {py::ssize_t(t.tensor.size)}, {1}, true);
      })
      .def_property_readonly("name", [](const PyTensor& t) { return t.tensor.name; })
      .def_property_readonly(
          "type", [](const PyTensor& t) { return t.tensor.type; }, "Lower case: 'f32', 'q4_k', 'i64'.")
      .def_property_readonly("shape", &PyTensor::Shape, "Row-major, the outermost dimension first.")
      .def_property_readonly("nbytes", [](const PyTensor& t) { return t.tensor.size; })
      .def_property_readonly(
          "offset", [](const PyTensor& t) { return t.tensor.offset; }, "Of the data, from the start of the file.")
      .def_property_readonly("data", &PyTensor::Data, "The bytes: a read-only uint8 view that keeps the file mapped.")
      .def(
          "forget", [](const PyTensor& t) { t.file->Forget(t.tensor.data, t.tensor.size); },
          "Gives its memory back to the system; a later access reads the file again.")
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
      .def("plain_metadata", [](const py::object& self) {  // shared with the file, which it keeps alive
        const auto& f = self.cast<const Gguf&>();
        return PyMetadata{{&f.file.metadata(), [self](const void*) {}}};
      }, "The metadata without a copy of it in Python.")
      .def_property_readonly("tensors", &Gguf::Tensors, "In the file's order.");

  py::class_<PyMetadata>(m, "GgufMetadata", "Metadata that is read or passed on without becoming Python objects.")
      .def(py::init([](const py::dict& facts) { return PyMetadata{MetadataFrom(facts)}; }), py::arg("metadata"))
      .def("__len__", [](const PyMetadata& m) { return m.entries->size(); })
      .def("get", &PyMetadata::Get, py::arg("key"), py::arg("default") = py::none(),
           "The value as plain Python: str, bool, int, float or a list.")
      .def("updated", &PyMetadata::Updated, py::arg("changes"), py::arg("without") = py::tuple(),
           "A copy with other or further values, less the keys in `without`.");

  py::class_<PyWriter>(m, "GgufWriter", "A GGUF file that appears at its path when it is finished, and not before.")
      .def(py::init(&MakeWriter), py::arg("path"), py::arg("metadata"), py::arg("tensors"), py::arg("alignment") = 0,
           "tensors: (name, shape, type) each; alignment 0: general.alignment of the metadata, or 32.")
      .def_property_readonly("file_size", [](PyWriter& w) { return w.Open().file_size(); })
      .def("write", &PyWriter::Write, py::arg("index"), py::arg("data"),
           "Writes all bytes of a tensor, once; any thread, any order.")
      .def("finish", &PyWriter::Finish, "Gives the file its name, replacing an older one.")
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](PyWriter& w, const py::args&) { w.writer.reset(); });

  m.def(
      "gguf_size",
      [](const py::object& metadata, const TensorList& tensors) {
        return GgufWriter::SizeOf(*MetadataFrom(metadata), ListOf(tensors));
      },
      py::arg("metadata"), py::arg("tensors"), "Bytes of the file that a GgufWriter of these would write.");
}

}  // namespace edgequant
