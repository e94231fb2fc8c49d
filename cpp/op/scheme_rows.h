// What the codes of run-time formats stand for.
#pragma once
#include <vector>

#include "kernels/cpu/scheme_decode.h"
#include "op/scheme.h"

namespace edgequant {

// Of one matrix, as the kernels that decode it take it.
struct CodeMeaning {
  explicit CodeMeaning(const SchemeView& q);
  CodeMeaning(const CodeMeaning&) = delete;

  CodeValues values;
  std::vector<float> table;  // of codebooks, filled up to all codes: those of a foreign file may lie past the end
  DecodeRow row;             // points at these; without codes, scales, and tables of groups
};

}  // namespace edgequant
