// The decoder: all layers of a language model in one call per token.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/bind.h"
#include "bind/call.h"
#include "op/decoder.h"

namespace edgequant {
namespace py = pybind11;
namespace {

// Panels and addresses by name; the caller keeps what they belong to.
DecoderLayer LayerOf(const py::dict& entries) {
  const auto panel = [&](const char* name) { return entries[name].cast<const Panel*>(); };
  const auto address = [&](const char* name) {
    return entries.contains(name) ? reinterpret_cast<const float*>(entries[name].cast<uintptr_t>()) : nullptr;
  };
  return {panel("query"), panel("key"), panel("value"), panel("output"), panel("gate"), panel("up"), panel("down"),
          address("input_norm"), address("post_norm"), address("query_norm"), address("key_norm"),
          address("query_bias"), address("key_bias"), address("value_bias"), address("output_bias")};
}

}  // namespace

void BindDecoder(py::module_& m) {
  py::class_<Decoder>(m, "Decoder", "All layers of a decoder of the Llama kind.")
      .def(py::init([](size_t hidden, size_t heads, size_t kv_heads, size_t head_dim, float eps, float scale,
                       bool exact, const std::vector<py::dict>& layers, uintptr_t final_norm) {
             std::vector<DecoderLayer> all;
             for (const py::dict& entries : layers) all.push_back(LayerOf(entries));
             const DecoderShape shape = {hidden, heads, kv_heads, head_dim, eps, scale,
                                         exact ? Compute::kExact : Compute::kInt8};
             return Decoder(shape, std::move(all), reinterpret_cast<const float*>(final_norm));
           }),
           py::arg("hidden"), py::arg("heads"), py::arg("kv_heads"), py::arg("head_dim"), py::arg("eps"),
           py::arg("scale"), py::arg("exact"), py::arg("layers"), py::arg("final_norm"))
      .def(
          "step",
          [](const Decoder& self, uintptr_t x, size_t rows, uintptr_t cos, uintptr_t sin, uintptr_t cache,
             size_t capacity, size_t past) {
            if (past >= capacity) Fail("the cache holds ", capacity, " positions, and all are taken");
            const py::gil_scoped_release unlocked;
            self.Step(reinterpret_cast<float*>(x), rows, reinterpret_cast<const float*>(cos),
                      reinterpret_cast<const float*>(sin), {reinterpret_cast<float*>(cache), capacity, past});
          },
          py::arg("x"), py::arg("rows"), py::arg("cos"), py::arg("sin"), py::arg("cache"), py::arg("capacity"),
          py::arg("past"), "One token per row, on addresses of floats: x (rows, hidden) becomes the last hidden states.");
}

}  // namespace edgequant
