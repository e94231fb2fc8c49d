// GGUF metadata as Python objects, and back.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "io/gguf.h"

namespace edgequant {

// str, bool, NumPy scalars; NumPy arrays of numbers, lists of str, lists of arrays or lists. Strings that are not UTF-8
// come with surrogate escapes.
pybind11::object ToPython(const GgufValue& value);
pybind11::dict ToPython(const GgufMetadata& metadata);

// The inverse, so that what was read is written again as it was. Beyond that: a plain int becomes u32 (i32 below zero,
// u64 or i64 where it does not fit), a plain float f32, a list of plain ints i32 (u32, i64, u64 where they do not fit),
// a list of plain floats f32, an empty list an empty array of strings. Throws Error naming the key.
GgufMetadata FromPython(const pybind11::dict& metadata);

// Metadata that Python holds without looking into it: tokenizers have lists of a hundred thousand strings.
struct PyMetadata {
  std::shared_ptr<const GgufMetadata> entries;

  pybind11::object Get(const std::string& key, const pybind11::object& otherwise) const;
  PyMetadata Updated(const pybind11::dict& changes, const pybind11::iterable& without) const;
};

// Of a PyMetadata, or of a dict as FromPython takes it.
std::shared_ptr<const GgufMetadata> MetadataFrom(const pybind11::object& metadata);

}  // namespace edgequant
