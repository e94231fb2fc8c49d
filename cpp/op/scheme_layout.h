// Which panel weights of a run-time format get, and what becomes of their codes.
#pragma once
#include <memory>
#include <vector>

#include "format/panel.h"
#include "op/scheme.h"

namespace edgequant {

struct CodeMeaning;

// What a row of the panel is: codes as stored there, scales and minima of the panel's groups.
struct RowRecipe {
  float zero = 0;              // what the panel subtracts from the codes it is given
  float beside = 0;            // how many scales are added to each weight after that
  int code_offset = 0;         // subtracted from codes that are stored as signed bytes
  std::vector<uint8_t> bytes;  // not empty: what each code becomes, `dim` codes of the panel
  std::vector<float> numbers;  // not empty: the `dim` numbers of each code, of which the largest in a group becomes 127
  std::shared_ptr<const CodeMeaning> meaning;  // of `numbers`, one to a code
  bool own_tables = false;     // of groups: entries become signed bytes, their largest the scale
  bool steps = false;          // or numbers of 6 bits, even steps from the lowest entry on

  bool Recodes() const { return own_tables || !bytes.empty() || !numbers.empty(); }
};

struct SchemeLayout {
  PanelLayout panel;
  RowRecipe recipe;
  bool exact_values = true;   // nothing is rounded but, maybe, scales and minima
  bool exact_scales = false;  // these neither
  bool one_scale = false;     // of the whole matrix: it goes to the factor
};

// Weights of a panel's group: the largest power of two that divides the format's; where that is less than 16, the one
// to whole multiples of which groups are filled up with the fewest bits.
int PanelGroup(const Scheme& s);

// Where neither f16 nor bf16 holds the scales, `exact` makes them f32; else they are rounded to f16.
SchemeLayout PanelLayoutOf(const SchemeView& q, bool exact);

}  // namespace edgequant
