// Weights in the layout that matrix products read (format/panel.h).
#pragma once
#include <memory>
#include <string>

#include "core/slabs.h"
#include "format/panel.h"
#include "op/hadamard.h"
#include "op/tensor.h"

namespace edgequant {

struct Panel {
  std::string format;        // the name of the format it came from
  PanelLayout layout;
  size_t rows = 0, cols = 0;
  size_t bytes = 0;          // of all panels
  SlabBytes data;
  std::shared_ptr<const Hadamard> rotation;  // of the activations, before they are multiplied; null: none

  size_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  size_t panel_bytes() const { return layout.PanelBytes(cols); }
};

// True if weights of this format have a panel.
bool CanRepack(FormatId format);

// One with memory that is not yet filled.
Panel AllocatePanel(const std::string& format, const PanelLayout& layout, size_t rows, size_t cols);

// Packs q on all threads; an Error if its format has no panel.
Panel Repack(const TensorView& q);

// For benchmarks: copies bytes to `size` bytes of new memory of the kind that panels have, on all threads. Where they
// are fewer than `size`, some are read twice.
SlabBytes CopyToNewMemory(const uint8_t* data, size_t bytes, size_t size);

}  // namespace edgequant
