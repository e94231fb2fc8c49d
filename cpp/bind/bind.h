// What module.cc registers, one function per file.
#pragma once
#include <pybind11/pybind11.h>

namespace edgequant {

void BindFormat(pybind11::module_& m);
void BindOp(pybind11::module_& m);
void BindAlgo(pybind11::module_& m);
void BindIo(pybind11::module_& m);
void BindMatmul(pybind11::module_& m);
void BindDecoder(pybind11::module_& m);
void BindScheme(pybind11::module_& m);
void BindVectors(pybind11::module_& m);

}  // namespace edgequant
