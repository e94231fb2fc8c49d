// The catalogue as Python sees it: plain dicts, derived from the constexpr descriptions.
#include <pybind11/pybind11.h>

#include "bind/bind.h"
#include "bind/call.h"

namespace edgequant {
namespace py = pybind11;
namespace {

py::object Describe(const Field& f) {
  py::dict d;
  d["kind"] = f.kind == FieldKind::kTrits ? "trits" : "bits";
  d["start_bit"] = f.start;
  d["bits"] = f.bits;
  d["lanes"] = f.lanes;
  d["slots"] = f.slots;
  d["lane_step"] = f.lane_step;
  d["slot_step"] = f.slot_step;
  d["chunk_step"] = f.chunk_step;
  d["up"] = f.up;
  d["signed"] = f.is_signed;
  d["begin"] = f.begin;
  d["end"] = f.end == Field().end ? py::object(py::none()) : py::int_(f.end);
  return d;
}

template <int kCount>
py::list Describe(const Field (&fields)[kCount]) {
  py::list list;
  for (const Field& f : fields)
    if (f.kind != FieldKind::kNone) list.append(Describe(f));
  return list;
}

const char* NameOf(Number type) {
  switch (type) {
    case Number::kF32: return "f32";
    case Number::kF16: return "f16";
    case Number::kBF16: return "bf16";
    case Number::kE8M0: return "e8m0";
    case Number::kE8M0Half: return "e8m0/2";
    case Number::kUE4M3: return "ue4m3";
    case Number::kNone: break;
  }
  return "none";
}

py::object Describe(const Level& s) {
  if (s.type == Number::kNone) return py::none();
  py::dict d;
  d["type"] = NameOf(s.type);
  d["byte"] = s.pieces.kind == FieldKind::kNone ? py::object(py::int_(s.byte)) : py::none();
  d["pieces"] = s.pieces.kind == FieldKind::kNone ? py::object(py::none()) : Describe(s.pieces);
  d["group"] = s.group;
  d["factor"] = s.factor;
  d["sub_group"] = s.sub_group;
  d["sub_zero"] = s.sub_zero;
  d["sub"] = Describe(s.sub);
  return d;
}

py::object Describe(const Map& m, int table_size) {
  py::dict d;
  if (m.kind == MapKind::kAffine) {
    d["kind"] = "affine";
    d["zero"] = m.zero;
  } else if (m.kind == MapKind::kTable) {
    d["kind"] = "table";
    py::list values;
    for (int k = 0; k < table_size; ++k) values.append(m.values[k]);
    d["values"] = values;
  } else {
    d["kind"] = "grid";
    d["dim"] = m.dim;
    d["rows"] = m.grid->rows;
    py::list levels;  // levels stand in rising order; unused places at the end are 0
    for (int k = 0; k < 8 && (k == 0 || m.grid->levels[k] > m.grid->levels[k - 1]); ++k)
      levels.append(m.grid->levels[k]);
    d["levels"] = levels;
    d["signs"] = m.signs.kind == FieldKind::kNone ? py::object(py::none()) : Describe(m.signs);
    d["shift"] = m.shift;
    d["shift_sign"] = m.shift_sign.kind == FieldKind::kNone ? py::object(py::none()) : Describe(m.shift_sign);
  }
  return d;
}

py::dict Describe(const CatalogEntry& entry) {
  const Block& b = *entry.block;
  int code_bits = 0;
  for (const Field& f : b.codes)
    if (f.kind == FieldKind::kBits) code_bits = std::max(code_bits, f.up + f.bits);
  py::dict d;
  d["name"] = entry.name;
  d["block"] = b.n;
  d["bytes"] = b.bytes;
  d["bits_per_weight"] = 8.0 * b.bytes / b.n;
  d["gguf_type"] = entry.gguf_type < 0 ? py::object(py::none()) : py::int_(entry.gguf_type);
  d["codes"] = Describe(b.codes);
  d["map"] = Describe(b.map, std::min(16, 1 << code_bits));
  d["scale"] = Describe(b.scale);
  d["offset"] = Describe(b.offset);
  return d;
}

}  // namespace

void BindFormat(py::module_& m) {
  m.def(
      "formats",
      [] {
        py::list list;
        for (const CatalogEntry& entry : kCatalog) list.append(Describe(entry));
        return list;
      },
      "All formats, in the order of the catalogue, one dict each.");
  m.def(
      "row_bytes", [](const std::string& format, size_t cols) { return RowBytes(FormatNamed(format), cols); },
      py::arg("format"), py::arg("cols"), "Bytes of one row of `cols` weights; Error if the block does not divide it.");
}

}  // namespace edgequant
