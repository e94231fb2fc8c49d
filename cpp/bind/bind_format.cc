#include "bind/bind.h"

namespace edgequant {

void BindFormat(pybind11::module_&) {}

}  // namespace edgequant
