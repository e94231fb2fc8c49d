// Codes of run-time formats as panels are packed from them.
#pragma once
#include <vector>

#include "kernels/cpu/pack_plan.h"
#include "op/scheme.h"

namespace edgequant {

// Codes that need no change but of their places: PackPanelCodes reads them where they lie.
struct CodesInPlace {
  CodesInPlace() = default;
  CodesInPlace(const SchemeView& q, const PanelLayout& layout, int code_offset);

  explicit operator bool() const { return !plans.empty(); }
  // For rows from `first` on.
  const PackPlan& PlanOf(size_t first) const { return plans[rows_of_slot ? first / rows_of_slot : 0]; }
  const uint8_t* At(size_t first) const { return codes + (rows_of_slot ? first % rows_of_slot : first) * stride; }

  // Words side by side of `rows` rows from `first` on, panel by panel: those of a row lie in other pages each, and all
  // of a line of memory should be used while it is in the cache.
  void CopyWords(size_t first, size_t rows, uint8_t* out) const;

  std::vector<PackPlan> plans;  // none: they are not such
  const uint8_t* codes = nullptr;
  size_t row_bytes = 0, stride = 0, rows_of_slot = 0;  // not 0: each has a plan of its own
  bool side_by_side = false;
  uint8_t minus = 0;
};

}  // namespace edgequant
