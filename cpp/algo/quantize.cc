#include "algo/quantize.h"

namespace edgequant {

bool CanQuantize(FormatId) { return false; }

void Quantize(const TensorView&, FormatId to, const QuantizeOptions&, uint8_t*, ErrorStats*) {
  Fail("no encoder for ", NameOf(to));
}

}  // namespace edgequant
