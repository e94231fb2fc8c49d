#include "op/dequantize.h"

namespace edgequant {

void Dequantize(const TensorView& q, FormatId to, void*) { Fail(NameOf(q.format), " to ", NameOf(to), " is not there yet"); }

}  // namespace edgequant
