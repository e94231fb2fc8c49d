#include "bind/bind.h"

namespace edgequant {

void BindAlgo(pybind11::module_&) {}

}  // namespace edgequant
