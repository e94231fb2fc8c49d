#include "bind/bind.h"
#include "core/error.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of edgequant. Private: use the package's own functions.";
  m.attr("__version__") = EDGEQUANT_VERSION;
  pybind11::register_exception<edgequant::Error>(m, "Error", PyExc_ValueError);
  edgequant::BindFormat(m);
  edgequant::BindOp(m);
  edgequant::BindAlgo(m);
  edgequant::BindIo(m);
  edgequant::BindMatmul(m);
  edgequant::BindDecoder(m);
  edgequant::BindScheme(m);
  edgequant::BindVectors(m);
}
