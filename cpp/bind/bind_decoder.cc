// The decoder: all layers of a language model in one call per token.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/bind.h"
#include "bind/call.h"
#include "op/decoder.h"

namespace edgequant {
namespace py = pybind11;
namespace {

FormatId TypeOf(const std::string& type) { return type == "bf16" ? FormatId::kBF16 : FormatId::kF32; }
const float* Floats(uintptr_t address) { return reinterpret_cast<const float*>(address); }

// Panels with first rows, addresses and numbers by name; the caller keeps what they belong to.
DecoderLayer LayerOf(const py::dict& entries) {
  const auto panel = [&](const char* name) {
    const auto [w, first] = entries[name].cast<std::pair<const Panel*, size_t>>();
    return PanelRows{w, first};
  };
  const auto address = [&](const char* name) {
    return entries.contains(name) ? reinterpret_cast<const void*>(entries[name].cast<uintptr_t>()) : nullptr;
  };
  return {panel("query"), panel("key"), panel("value"), panel("output"), panel("gate"), panel("up"), panel("down"),
          address("input_norm"), address("post_norm"), address("query_norm"), address("key_norm"),
          address("attention_norm"), address("feed_norm"), address("query_bias"), address("key_bias"),
          address("value_bias"), address("output_bias"), entries["window"].cast<size_t>(),
          entries["rotation"].cast<size_t>()};
}

void PyStep(const Decoder& self, uintptr_t x, size_t rows, size_t count, uintptr_t positions, uintptr_t starts,
            const std::vector<std::pair<uintptr_t, uintptr_t>>& rotations, const std::string& type, uintptr_t cache,
            size_t capacity, size_t past) {
  std::vector<Rotation> tables;
  for (const auto& [cos, sin] : rotations) tables.push_back({Floats(cos), Floats(sin)});
  const DecoderTokens tokens = {rows, count, reinterpret_cast<const int64_t*>(positions),
                                reinterpret_cast<const int64_t*>(starts)};
  const DecoderCache keys_and_values = {TypeOf(type), reinterpret_cast<void*>(cache), capacity, past};
  const py::gil_scoped_release unlocked;
  self.Step(reinterpret_cast<float*>(x), tokens, tables, keys_and_values);
}

// dicts[i].get(names[i]) is found[i] for all i: in the core since it is asked for every token.
bool AreInPlace(const py::list& dicts, const py::list& names, const py::list& found) {
  for (py::ssize_t i = 0; i < PyList_GET_SIZE(found.ptr()); ++i) {
    PyObject* now = PyDict_GetItem(PyList_GET_ITEM(dicts.ptr(), i), PyList_GET_ITEM(names.ptr(), i));
    if ((now ? now : Py_None) != PyList_GET_ITEM(found.ptr(), i)) return false;
  }
  return true;
}

}  // namespace

void BindDecoder(py::module_& m) {
  py::class_<Decoder>(m, "Decoder", "All layers of a decoder of the Llama kind.")
      .def(py::init([](size_t hidden, size_t heads, size_t kv_heads, size_t head_dim, size_t rotary_dim, float eps,
                       float scale, bool gelu, bool exact, const std::string& vectors, float norm_plus,
                       const std::vector<py::dict>& layers, uintptr_t final_norm) {
             std::vector<DecoderLayer> all;
             for (const py::dict& entries : layers) all.push_back(LayerOf(entries));
             const DecoderShape shape = {hidden, heads, kv_heads, head_dim, rotary_dim, eps, scale,
                                         gelu,
                                         exact ? Compute::kExact : Compute::kInt8,
                                         TypeOf(vectors), norm_plus};
             return Decoder(shape, std::move(all), reinterpret_cast<const void*>(final_norm));
           }),
           py::arg("hidden"), py::arg("heads"), py::arg("kv_heads"), py::arg("head_dim"), py::arg("rotary_dim"),
           py::arg("eps"), py::arg("scale"), py::arg("gelu"), py::arg("exact"), py::arg("vectors"),
           py::arg("norm_plus"), py::arg("layers"), py::arg("final_norm"))
      .def("step", &PyStep, py::arg("x"), py::arg("rows"), py::arg("count"), py::arg("positions"), py::arg("starts"),
           py::arg("rotations"), py::arg("type"), py::arg("cache"), py::arg("capacity"), py::arg("past"),
           "`count` tokens per row, on addresses: x (rows, count, hidden) floats become the last hidden states.");
  m.def("are_in_place", &AreInPlace, py::arg("dicts"), py::arg("names"), py::arg("found"),
        "Whether dicts[i].get(names[i]) is found[i] for all i.");
}

}  // namespace edgequant
