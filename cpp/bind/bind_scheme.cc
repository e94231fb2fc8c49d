// Formats described at run time.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "algo/ldlq.h"
#include "algo/scheme.h"
#include "bind/bind.h"
#include "bind/call.h"
#include "format/cell.h"
#include "op/scheme_panel.h"

namespace edgequant {
namespace py = pybind11;
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

constexpr const char* kPartNames[kParts] = {"super", "super_shift", "scale", "shift", "entries", "codes"};

template <class T>
T Choice(const std::string& what, const std::string& name, std::initializer_list<std::pair<const char*, T>> choices) {
  for (const auto& [key, value] : choices)
    if (name == key) return value;
  Fail("there is no ", what, " named '", name, "'");
}

Cell CellNamed(const std::string& name) {
  return Choice<Cell>("number type", name, {{"int", Cell::kInteger}, {"f32", Cell::kF32}, {"f16", Cell::kF16},
                                            {"bf16", Cell::kBF16}, {"e8m0", Cell::kE8M0}, {"e4m3", Cell::kE4M3}});
}

template <class T>
void Get(const py::dict& d, const char* key, T& value) {
  if (!d.contains(key)) return;
  try {
    value = d[key].cast<T>();
  } catch (const py::cast_error&) {
    Fail("the description of a format gives ", std::string(py::repr(d[key])), " as its ", key);
  }
}

Plane PlaneFrom(const py::dict& d) {
  Plane p;
  std::string cell = "int";
  Get(d, "cell", cell);
  p.cell = CellNamed(cell);
  Get(d, "bits", p.bits);
  Get(d, "word", p.word);
  Get(d, "slots", p.slots);
  Get(d, "high_first", p.high_first);
  Get(d, "order", p.order);
  Get(d, "lanes", p.lanes);
  Get(d, "lane_unit", p.lane_unit);
  Get(d, "down", p.down);
  Get(d, "cols_first", p.cols_first);
  Get(d, "flat", p.flat);
  Get(d, "trits", p.trits);
  Get(d, "fill", p.fill);
  Get(d, "offset", p.offset);
  Get(d, "chunks_first", p.chunks_first);
  Get(d, "every", p.every);
  Get(d, "at", p.at);
  if (p.cell != Cell::kInteger) p.bits = p.word = CellBits(p.cell);
  if (p.trits) p.bits = 8;
  return p;
}

Scheme SchemeFrom(const py::dict& d) {
  Scheme s;
  Get(d, "name", s.name);
  std::string values = "affine", zeros = "none", rule = "none", rounding = "even";
  Get(d, "values", values);
  Get(d, "zeros", zeros);
  Get(d, "rule", rule);
  Get(d, "rounding", rounding);
  s.values = Choice<Values>("map of values", values,
                            {{"affine", Values::kAffine},
                             {"table", Values::kTable},
                             {"group_table", Values::kGroupTable},
                             {"minifloat", Values::kMinifloat},
                             {"codebook", Values::kCodebook}});
  s.zeros = Choice<Zero>("kind of zero", zeros, {{"none", Zero::kNone}, {"integer", Zero::kInteger},
                         {"float", Zero::kFloat}, {"minimum", Zero::kMinimum}});
  s.rule = Choice<Rule>("rule", rule, {{"none", Rule::kNone}, {"extreme", Rule::kExtreme}, {"absmax", Rule::kAbsMax},
                        {"range_zero", Rule::kRangeZero}, {"range", Rule::kRange}, {"edge", Rule::kEdge},
                        {"absmean", Rule::kAbsMean}, {"power_of_two", Rule::kPowerOfTwo}});
  s.rounding = Choice<Rounding>(
      "rounding", rounding, {{"even", Rounding::kHalfEven}, {"away", Rounding::kHalfAway}, {"up", Rounding::kHalfUp}});
  Get(d, "bits", s.bits);
  s.codes = 1 << std::min(std::max(s.bits, 0), 16);
  Get(d, "codes", s.codes);
  Get(d, "dim", s.dim);
  Get(d, "zero", s.zero);
  Get(d, "exponent_bits", s.exponent_bits);
  Get(d, "exponent_bias", s.exponent_bias);
  Get(d, "highest", s.highest);
  Get(d, "table", s.table);
  Get(d, "learned", s.learned);
  Get(d, "group", s.group);
  Get(d, "group_rows", s.group_rows);
  Get(d, "pad_cols", s.pad_cols);
  Get(d, "sub_zero", s.sub_zero);
  Get(d, "super_group", s.super_group);
  Get(d, "divides", s.divides);
  Get(d, "sub_table", s.sub_table);
  if (d.contains("transform")) {
    py::dict fields;
    Get(d, "transform", fields);
    std::string kind;
    Get(fields, "kind", kind);
    s.transform.hadamard = Choice<bool>("transform", kind, {{"hadamard", true}});
    Get(fields, "block", s.transform.block);
    Get(fields, "seed", s.transform.seed);
  }
  Get(d, "interleaved", s.interleaved);
  Get(d, "block", s.block);
  Get(d, "rule_reach", s.rule_reach);
  Get(d, "divide", s.divide);
  Get(d, "rounded_scale", s.rounded_scale);
  Get(d, "negative_scale", s.negative_scale);
  const std::pair<const char*, Plane*> planes[] = {{"super_plane", &s.super}, {"super_shift_plane", &s.super_shift},
      {"scale_plane", &s.scale}, {"shift_plane", &s.shift}, {"entries_plane", &s.entries}, {"code_plane", &s.code}};
  for (const auto& [key, plane] : planes)
    if (d.contains(key)) {
      py::dict fields;
      Get(d, key, fields);
      *plane = PlaneFrom(fields);
    }
  // powers of two, and integers from 0 up, have no sign
  if (s.scale.cell == Cell::kE8M0 || (s.scale.cell == Cell::kInteger && s.sub_zero == 0)) s.negative_scale = false;
  CheckScheme(s);
  return s;
}

// The arrays there are: name -> (outer, inner, bits of a word).
std::vector<Part> PartsOf(const Scheme& s) {
  std::vector<Part> parts;
  for (int k = 0; k < kParts; ++k)
    if (const Plane& p = PlaneOf(s, Part(k)); s.interleaved ? Part(k) == Part::kCode : p.present() && p.at == 0)
      parts.push_back(Part(k));
  return parts;
}
int WordOf(const Scheme& s, Part part) { return s.interleaved ? 8 : PlaneOf(s, part).word; }

void AllocateArrays(const Scheme& s, size_t rows, size_t cols, py::dict& out, SchemeArrays<uint8_t>& arrays) {
  for (Part part : PartsOf(s)) {
    const PlaneShape shape = ArrayOf(s, part, rows, cols);
    const int word = WordOf(s, part);
    constexpr size_t line = 64;  // of the cache: arrays begin with one
    const size_t bytes = size_t(word) / 8;
    const py::array_t<uint8_t> memory(py::ssize_t(shape.outer * shape.inner * bytes + line));
    const uint8_t* const data = memory.data() + (line - reinterpret_cast<uintptr_t>(memory.data()) % line) % line;
    const py::array a(py::dtype(word == 8 ? "uint8" : word == 16 ? "uint16" : "uint32"), {shape.outer, shape.inner},
                      {shape.inner * bytes, bytes}, data, memory);
    arrays[part] = static_cast<uint8_t*>(const_cast<void*>(a.data()));
    out[kPartNames[int(part)]] = a;
  }
  if (s.shift.at) arrays[Part::kShift] = arrays[Part::kScale];
}

Effort EffortNamed(const std::string& name) {
  return Choice<Effort>("effort", name,
                        {{"fast", Effort::kFast}, {"default", Effort::kDefault}, {"best", Effort::kBest}});
}

py::dict PyQuantize(const Scheme& s, const Floats& x, const std::optional<Floats>& importance,
                    const std::string& effort) {
  const size_t rows = size_t(x.shape(0)), cols = size_t(x.shape(1));
  if (importance && size_t(importance->size()) != cols)
    Fail("the importance has ", importance->size(), " numbers, but there are ", cols, " columns");
  CheckFits(s, rows, cols);
  SchemeOptions options;
  options.importance = importance ? importance->data() : nullptr;
  options.effort = EffortNamed(effort);
  py::dict out;
  SchemeArrays<uint8_t> arrays;
  AllocateArrays(s, rows, cols, out, arrays);
  std::vector<float> table;
  {
    const py::gil_scoped_release unlocked;
    QuantizeScheme(s, x.data(), rows, cols, options, arrays, &table);
  }
  if (s.learned) out["table"] = Floats(py::ssize_t(table.size()), table.data());
  return out;
}

py::dict PyQuantizeLdlq(const Scheme& s, const Floats& x, const Floats& hessian, float damping,
                        const std::string& effort) {
  const size_t rows = size_t(x.shape(0)), cols = size_t(x.shape(1));
  if (hessian.ndim() != 2 || size_t(hessian.shape(0)) != cols || size_t(hessian.shape(1)) != cols)
    Fail("the Hessian of ", cols, " columns is ", cols, " x ", cols);
  CheckFits(s, rows, cols);
  const Effort how = EffortNamed(effort);
  py::dict out;
  SchemeArrays<uint8_t> arrays;
  AllocateArrays(s, rows, cols, out, arrays);
  std::vector<float> table;
  {
    const py::gil_scoped_release unlocked;
    QuantizeSchemeLdlq(s, x.data(), rows, cols, hessian.data(), damping, how, arrays, &table);
  }
  if (s.learned) out["table"] = Floats(py::ssize_t(table.size()), table.data());
  return out;
}

constexpr size_t kSlice = size_t{1} << 26;  // weights between two looks at signals

// A matrix over Python's arrays, held while this lives; an Error unless they have the sizes that it needs.
struct Held {
  SchemeView view;
  std::vector<std::unique_ptr<Bytes>> bytes;
  std::optional<Floats> table;

  Held(const Scheme& s, const py::dict& arrays, size_t rows, size_t cols) : view{&s, rows, cols, {}, nullptr} {
    CheckFits(s, rows, cols);
    for (Part part : PartsOf(s)) {
      const char* const name = kPartNames[int(part)];
      if (!arrays.contains(name)) Fail("format '", s.name, "': the array of ", name, " is missing");
      bytes.push_back(std::make_unique<Bytes>(arrays[name]));
      const PlaneShape shape = ArrayOf(s, part, rows, cols);
      const size_t needed = shape.outer * shape.inner * size_t(WordOf(s, part)) / 8;
      if (bytes.back()->size() != needed)
        Fail("format '", s.name, "': the ", name, " of ", rows, " x ", cols, " weights take ", needed, " bytes, not ",
             bytes.back()->size());
      view.arrays[part] = bytes.back()->data();
    }
    if (s.shift.at) view.arrays[Part::kShift] = view.arrays[Part::kScale];
    if (!s.learned) return;
    if (!arrays.contains("table")) Fail("format '", s.name, "': the learned table is missing");
    table = arrays["table"].cast<Floats>();
    if (size_t(table->size()) != size_t(s.codes) * size_t(s.dim))
      Fail("format '", s.name, "': the table has ", table->size(), " numbers, not ", s.codes, " x ", s.dim);
    view.table = table->data();
  }
};

Floats PyDequantize(const Scheme& s, const py::dict& arrays, size_t rows, size_t cols, size_t first,
                    std::optional<size_t> count) {
  const Held q(s, arrays, rows, cols);
  if (first > rows || count.value_or(0) > rows - first) Fail("there are ", rows, " rows only");
  const size_t n = count.value_or(rows - first);
  Floats out({n, cols});
  float* const to = out.mutable_data();
  ForSlices(n, cols, kSlice,
            [&](size_t begin, size_t some) { DequantizeScheme(q.view, first + begin, some, to + begin * cols); });
  return out;
}

using Bytes2 = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;

// Codes of a matrix, and scale and zero or minimum of each group.
py::tuple PyRead(const Scheme& s, const py::dict& arrays, size_t rows, size_t cols) {
  const Held q(s, arrays, rows, cols);
  const size_t groups = s.GroupsOf(cols), code_cols = s.CodeCols(cols), codes_of_row = cols / size_t(s.dim);
  Floats scale({rows, groups}), shift({rows, groups});
  py::array codes(py::dtype(s.digits() == 1 ? "uint8" : "uint16"), {rows, codes_of_row});
  std::vector<uint8_t> row(code_cols);
  std::vector<float> entries(s.entries.present() ? groups * size_t(s.codes) : 0);
  ScaleReader scales(q.view);
  for (size_t r = 0; r < rows; ++r) {
    ReadCodes(q.view, r, 1, row.data(), code_cols);
    void* const to = codes.mutable_data(py::ssize_t(r));
    if (s.digits() == 1) std::copy_n(row.data(), codes_of_row, static_cast<uint8_t*>(to));
    else JoinCodes(s, row.data(), codes_of_row, static_cast<uint16_t*>(to));
    scales.Read(r, scale.mutable_data(py::ssize_t(r), 0), shift.mutable_data(py::ssize_t(r), 0), entries.data());
  }
  return py::make_tuple(codes, scale, shift);
}

py::dict PyWrite(const Scheme& s, const Bytes2& codes, const Floats& scale, const Floats& shift) {
  const size_t rows = size_t(codes.shape(0)), cols = size_t(codes.shape(1));
  CheckFits(s, rows, cols);
  py::dict out;
  SchemeArrays<uint8_t> arrays;
  AllocateArrays(s, rows, cols, out, arrays);
  WriteScheme(s, codes.data(), scale.data(), shift.data(), rows, cols, arrays);
  return out;
}

using Groups = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

py::object PyRepack(const Scheme& s, const py::dict& arrays, size_t rows, size_t cols,
                    const std::optional<Groups>& groups, const std::optional<Floats>& scale) {
  const Held q(s, arrays, rows, cols);
  if ((groups && size_t(groups->size()) != cols) || (scale && size_t(scale->size()) != cols))
    Fail("format '", s.name, "': there must be a group, or a factor, for each of ", cols, " columns");
  if (!CanRepack(s) || !HoldsNumbersOnly(q.view)) return py::none();
  SchemePanel result;
  {
    const py::gil_scoped_release unlocked;
    result = Repack(q.view, {groups ? groups->data() : nullptr, scale ? scale->data() : nullptr});
  }
  return py::make_tuple(std::move(result.panel), result.exact);
}

Panel PyRepackExactly(const Scheme& s, const py::dict& arrays, size_t rows, size_t cols) {
  const Held q(s, arrays, rows, cols);
  const py::gil_scoped_release unlocked;
  return RepackExactly(q.view);
}

}  // namespace

void BindScheme(py::module_& m) {
  py::class_<Scheme>(m, "Scheme", "A format described at run time.")
      .def(py::init(&SchemeFrom), py::arg("description"))
      .def("quantize", &PyQuantize, py::arg("x"), py::arg("importance"), py::arg("effort"),
           "The arrays of a float32 matrix, by name: words of 8, 16 or 32 bits, outer x inner.")
      .def("quantize_ldlq", &PyQuantizeLdlq, py::arg("x"), py::arg("hessian"), py::arg("damping") = 0.01f,
           py::arg("effort") = "default",
           "The same with error feedback for inputs of the second moments `hessian` (cols, cols).")
      .def(
          "check", [](const Scheme& s, const py::dict& a, size_t rows, size_t cols) { Held(s, a, rows, cols); },
          py::arg("arrays"), py::arg("rows"), py::arg("cols"), "Error unless the arrays are those of such a matrix.")
      .def("dequantize", &PyDequantize, py::arg("arrays"), py::arg("rows"), py::arg("cols"), py::arg("first") = 0,
           py::arg("count") = py::none(), "The weights of some rows, float32.")
      .def("read", &PyRead, py::arg("arrays"), py::arg("rows"), py::arg("cols"),
           "Codes, and scale and zero or minimum of each group of a row.")
      .def("write", &PyWrite, py::arg("codes"), py::arg("scale"), py::arg("shift"), "The arrays of what read gives.")
      .def("repack", &PyRepack, py::arg("arrays"), py::arg("rows"), py::arg("cols"), py::arg("groups") = py::none(),
           py::arg("scale") = py::none(),
           "A Panel, and whether it holds exactly the decoded weights; None if the format has no panel. Columns may "
           "belong to any groups, and have factors.")
      .def("repack_exactly", &PyRepackExactly, py::arg("arrays"), py::arg("rows"), py::arg("cols"),
           "A Panel of the very weights; where there is none, a copy that products decode piece by piece, whatever "
           "compute is.");
}

}  // namespace edgequant
