// GGUF metadata as Python objects, and back.
#pragma once
#include <pybind11/pybind11.h>

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

}  // namespace edgequant
