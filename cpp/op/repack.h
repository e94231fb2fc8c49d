// Weights in the layout that matrix products read (format/panel.h).
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/slabs.h"
#include "format/grid_panel.h"
#include "op/hadamard.h"
#include "op/tensor.h"

namespace edgequant {

// What becomes of a row of activations before it meets a panel, in this order.
struct PanelInput {
  size_t cols = 0;              // numbers of the row
  std::vector<float> scale;     // if any, each is multiplied by its own
  std::shared_ptr<const Hadamard> rotation;  // or null
  std::vector<uint32_t> order;  // if any: column k of the panel takes number order[k], or 0 where that is `cols`

  void Apply(FormatId type, const void* x, float* out) const;  // x of type f32, f16 or bf16
};

// Weights that are multiplied as f32, in no panel: numbers where they lie, or rows that are decoded piece by piece.
struct FloatWeights {
  FormatId type = FormatId::kF32;  // of the numbers: f32, f16 or bf16
  const uint8_t* data = nullptr;   // rows of numbers, which their owner keeps; or null
  // k and count: multiples of 16, or the end.
  std::function<void(size_t row, size_t k, size_t count, float* out)> decode;
};

struct Panel {
  std::string format;        // the name of the format it came from
  PanelLayout layout;
  size_t rows = 0, cols = 0;
  size_t bytes = 0;          // of all panels
  SlabBytes data;
  std::shared_ptr<const FloatWeights> floats;  // null: there is a panel
  std::shared_ptr<const PanelInput> input;  // null: activations are multiplied as they are

  size_t inputs() const { return input ? input->cols : cols; }  // K: numbers of a row of activations
  size_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  size_t panel_bytes() const { return layout.PanelBytes(cols); }
};

// Which of the two panels that rows of a grid (IQ1, IQ2, IQ3) have: kFast holds single weights, as codes of 2 to 4 bits
// or, where bytes are looked up in registers, as trits (format/grid_panel.h); kCompact numbers of rows, at the format's
// own rate; kAuto takes the one whose products are faster on this machine. Other formats have one.
enum class PanelKind { kAuto, kCompact, kFast };

// True if weights of this format have a panel.
bool CanRepack(FormatId format);
// What kAuto shall mean from now on; kAuto: the faster one again.
void SetPanel(PanelKind kind);
// What `kind` comes to: kCompact or kFast; the latter, too, where there is one panel only.
PanelKind ChoosePanel(FormatId format, PanelKind kind);

// One with memory that is not yet filled.
Panel AllocatePanel(const std::string& format, const PanelLayout& layout, size_t rows, size_t cols);

// f32, f16 or bf16 numbers as products take them: a view of q, which must live as long.
Panel ViewNumbers(const TensorView& q);

// Packs q on all threads; an Error if its format has no panel.
Panel Repack(const TensorView& q, PanelKind kind = PanelKind::kAuto);

// QuIP#'s E8P words (format/e8p.h), of rows (a multiple of 16) x cols (of 256) weights at `scale`, as a compact panel.
// An Error for other shapes.
Panel RepackE8P(const uint64_t* words, size_t rows, size_t cols, float scale);
// Whether `kind` comes to that panel for E8P.
bool ChoosesCompactE8P(PanelKind kind);

// For benchmarks: copies bytes to `size` bytes of new memory of the kind that panels have, on all threads. Where they
// are fewer than `size`, some are read twice.
SlabBytes CopyToNewMemory(const uint8_t* data, size_t bytes, size_t size);

}  // namespace edgequant
