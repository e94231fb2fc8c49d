#include "bind/bind.h"

namespace edgequant {

void BindIo(pybind11::module_&) {}

}  // namespace edgequant
