#include "bind/gguf_metadata.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <unordered_set>

#include "core/error.h"
#include "io/text.h"

namespace py = pybind11;

namespace edgequant {
namespace {

constexpr int kDeepest = 8;  // arrays within arrays: the reader's limit

struct Kind {
  GgufType type;
  const char* dtype;
};
constexpr Kind kKinds[] = {
    {GgufType::kU8, "|u1"},  {GgufType::kI8, "|i1"},  {GgufType::kU16, "<u2"}, {GgufType::kI16, "<i2"},
    {GgufType::kU32, "<u4"}, {GgufType::kI32, "<i4"}, {GgufType::kU64, "<u8"}, {GgufType::kI64, "<i8"},
    {GgufType::kF32, "<f4"}, {GgufType::kF64, "<f8"}, {GgufType::kBool, "|b1"},
};

py::dtype DtypeOf(GgufType type) {
  for (const Kind& kind : kKinds)
    if (kind.type == type) return py::dtype(kind.dtype);
  Fail("no NumPy type for GGUF type ", uint32_t(type));
}

GgufType TypeOf(const py::dtype& dtype, const std::string& key) {
  for (const Kind& kind : kKinds)
    if (dtype.equal(py::dtype(kind.dtype))) return kind.type;
  Fail("metadata ", Quote(key), ": GGUF has no type for ", std::string(py::str(dtype)));
}

py::object Text(const std::string& text) {
  PyObject* object = PyUnicode_DecodeUTF8(text.data(), Py_ssize_t(text.size()), "surrogateescape");
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

std::string TextFrom(py::handle object) {
  Py_ssize_t size = 0;
  if (const char* data = PyUnicode_AsUTF8AndSize(object.ptr(), &size)) return {data, size_t(size)};
  PyErr_Clear();  // it has surrogate escapes
  const py::object bytes =
      py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(object.ptr(), "utf-8", "surrogateescape"));
  if (!bytes) throw py::error_already_set();
  return {PyBytes_AS_STRING(bytes.ptr()), size_t(PyBytes_GET_SIZE(bytes.ptr()))};
}

// numpy.array(object, dtype)
py::array NumpyArray(py::handle object, const py::object& dtype) {
  return py::module_::import("numpy").attr("array")(object, dtype);
}

py::array Numbers(const GgufValue& value) {
  const py::dtype dtype = DtypeOf(value.type);
  return py::array(dtype, {py::ssize_t(value.numbers.size()) / dtype.itemsize()}, value.numbers.data());
}

GgufValue FromArray(py::array array, const std::string& key) {
  const py::dtype dtype = py::reinterpret_steal<py::dtype>(array.dtype().attr("newbyteorder")("<").release());
  GgufValue value;
  value.type = TypeOf(dtype, key);
  value.is_array = true;
  if (array.ndim() != 1) Fail("metadata ", Quote(key), ": an array of ", array.ndim(), " dimensions, not 1");
  const py::array plain = NumpyArray(array, dtype);  // contiguous, little-endian
  const auto* bytes = static_cast<const uint8_t*>(plain.data());
  value.numbers.assign(bytes, bytes + plain.nbytes());
  return value;
}

template <class T>
GgufValue Scalar(GgufType type, T number) {
  GgufValue value;
  value.type = type;
  value.numbers.resize(sizeof(T));
  std::memcpy(value.numbers.data(), &number, sizeof(T));
  return value;
}

bool IsPlainInt(py::handle object) { return PyLong_CheckExact(object.ptr()); }
bool IsPlainFloat(py::handle object) { return PyFloat_CheckExact(object.ptr()); }
bool IsNumpyScalar(py::handle object) {
  static const py::handle generic = py::object(py::module_::import("numpy").attr("generic")).release();
  return py::isinstance(object, generic);
}

// The first of `types` that holds every one of `numbers`.
GgufType Fitting(const py::list& numbers, std::initializer_list<GgufType> types, const std::string& key) {
  bool fits[13];  // by GgufType
  std::fill(std::begin(fits), std::end(fits), true);
  for (const py::handle number : numbers) {
    int beyond = 0;
    const long long n = PyLong_AsLongLongAndOverflow(number.ptr(), &beyond);
    const bool above_u64 = beyond > 0 && PyLong_AsUnsignedLongLong(number.ptr()) == ~0ull && PyErr_Occurred();
    if (above_u64) PyErr_Clear();
    fits[int(GgufType::kI32)] &= beyond == 0 && n == int32_t(n);
    fits[int(GgufType::kU32)] &= beyond == 0 && n == uint32_t(n);
    fits[int(GgufType::kI64)] &= beyond == 0;
    fits[int(GgufType::kU64)] &= beyond == 0 ? n >= 0 : beyond > 0 && !above_u64;
  }
  for (const GgufType type : types)
    if (fits[int(type)]) return type;
  Fail("metadata ", Quote(key), ": an integer that does not fit 64 bits");
}

GgufValue FromList(const py::list& list, const std::string& key, int depth);

GgufValue FromPython(py::handle object, const std::string& key, int depth) {
  if (PyUnicode_Check(object.ptr())) {
    GgufValue value;
    value.type = GgufType::kString;
    value.strings.push_back(TextFrom(object));
    return value;
  }
  if (PyBool_Check(object.ptr())) return Scalar<uint8_t>(GgufType::kBool, object.ptr() == Py_True);
  if (IsPlainInt(object)) {
    py::list one;
    one.append(object);
    const GgufType type = Fitting(one, {GgufType::kU32, GgufType::kI32, GgufType::kU64, GgufType::kI64}, key);
    const uint64_t bits = PyLong_AsUnsignedLongLongMask(object.ptr());
    return SizeOf(type) == 4 ? Scalar(type, uint32_t(bits)) : Scalar(type, bits);
  }
  if (IsPlainFloat(object)) return Scalar<float>(GgufType::kF32, float(PyFloat_AS_DOUBLE(object.ptr())));
  if (IsNumpyScalar(object)) {
    GgufValue value = FromArray(py::array(object.attr("reshape")(1)), key);
    value.is_array = false;
    return value;
  }
  if (py::isinstance<py::array>(object)) return FromArray(py::reinterpret_borrow<py::array>(object), key);
  if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr())) {
    if (depth >= kDeepest) Fail("metadata ", Quote(key), ": arrays nest deeper than ", kDeepest);
    return FromList(py::list(py::reinterpret_borrow<py::object>(object)), key, depth);
  }
  Fail("metadata ", Quote(key), ": GGUF has no type for ",
       std::string(py::str(py::type::handle_of(object).attr("__name__"))));
}

GgufValue FromList(const py::list& list, const std::string& key, int depth) {
  GgufValue value;
  value.is_array = true;
  value.type = GgufType::kString;
  const auto all = [&](auto&& is) {
    for (const py::handle item : list)
      if (!is(item)) return false;
    return true;
  };
  if (all([](py::handle item) { return PyUnicode_Check(item.ptr()) != 0; })) {
    value.strings.reserve(list.size());
    for (const py::handle item : list) value.strings.push_back(TextFrom(item));
    return value;
  }
  if (all([](py::handle item) { return PyBool_Check(item.ptr()) != 0; })) {
    value.type = GgufType::kBool;
    for (const py::handle item : list) value.numbers.push_back(item.ptr() == Py_True);
    return value;
  }
  if (all(IsPlainInt)) {
    const GgufType type = Fitting(list, {GgufType::kI32, GgufType::kU32, GgufType::kI64, GgufType::kU64}, key);
    return FromArray(NumpyArray(list, DtypeOf(type)), key);
  }
  if (all([](py::handle item) { return IsPlainFloat(item) || IsPlainInt(item); }))
    return FromArray(NumpyArray(list, py::dtype("<f4")), key);
  if (all(IsNumpyScalar) && all([&](py::handle item) { return item.attr("dtype").equal(list[0].attr("dtype")); }))
    return FromArray(NumpyArray(list, list[0].attr("dtype")), key);
  value.type = GgufType::kArray;
  for (const py::handle item : list) {
    value.arrays.push_back(FromPython(item, key, depth + 1));
    if (!value.arrays.back().is_array) Fail("metadata ", Quote(key), ": a list of values of different types");
  }
  return value;
}

template <class T>
T NumberAt(const GgufValue& value, size_t i) {
  T number;
  std::memcpy(&number, value.numbers.data() + i * sizeof(T), sizeof(T));
  return number;
}

// Number i without NumPy.
py::object PlainNumber(const GgufValue& value, size_t i) {
  switch (value.type) {
    case GgufType::kU8: return py::int_(NumberAt<uint8_t>(value, i));
    case GgufType::kI8: return py::int_(NumberAt<int8_t>(value, i));
    case GgufType::kU16: return py::int_(NumberAt<uint16_t>(value, i));
    case GgufType::kI16: return py::int_(NumberAt<int16_t>(value, i));
    case GgufType::kU32: return py::int_(NumberAt<uint32_t>(value, i));
    case GgufType::kI32: return py::int_(NumberAt<int32_t>(value, i));
    case GgufType::kU64: return py::int_(NumberAt<uint64_t>(value, i));
    case GgufType::kI64: return py::int_(NumberAt<int64_t>(value, i));
    case GgufType::kF32: return py::float_(NumberAt<float>(value, i));
    case GgufType::kF64: return py::float_(NumberAt<double>(value, i));
    default: return py::bool_(NumberAt<uint8_t>(value, i) != 0);
  }
}

}  // namespace

py::object ToPython(const GgufValue& value) {
  if (value.type == GgufType::kString) {
    if (!value.is_array) return Text(value.strings[0]);
    py::list list(value.strings.size());
    for (size_t i = 0; i < value.strings.size(); ++i) list[i] = Text(value.strings[i]);
    return list;
  }
  if (value.type == GgufType::kArray) {
    py::list list(value.arrays.size());
    for (size_t i = 0; i < value.arrays.size(); ++i) list[i] = ToPython(value.arrays[i]);
    return list;
  }
  if (value.is_array) return Numbers(value);
  if (value.type == GgufType::kBool) return py::bool_(value.numbers[0] != 0);
  return Numbers(value)[py::int_(0)];
}

py::dict ToPython(const GgufMetadata& metadata) {
  py::dict out;
  for (const auto& [key, value] : metadata) out[py::str(key)] = ToPython(value);
  return out;
}

GgufMetadata FromPython(const py::dict& metadata) {
  GgufMetadata out;
  for (const auto& [key, value] : metadata) {
    if (!PyUnicode_Check(key.ptr())) Fail("metadata keys must be str");
    const std::string name = TextFrom(key);
    out.emplace_back(name, FromPython(value, name, 0));
  }
  return out;
}

py::object PyMetadata::Get(const std::string& key, const py::object& otherwise) const {
  for (const auto& [name, value] : *entries) {
    if (name != key) continue;
    if (value.type == GgufType::kString || value.type == GgufType::kArray) return ToPython(value);
    if (!value.is_array) return PlainNumber(value, 0);
    py::list list(value.numbers.size() / SizeOf(value.type));
    for (size_t i = 0; i < list.size(); ++i) list[i] = PlainNumber(value, i);
    return list;
  }
  return otherwise;
}

PyMetadata PyMetadata::Updated(const py::dict& changes, const py::iterable& without) const {
  GgufMetadata added = FromPython(changes);
  std::unordered_set<std::string> left_out;
  for (const py::handle key : without) left_out.insert(py::cast<std::string>(key));
  auto result = std::make_shared<GgufMetadata>();
  for (const auto& entry : *entries) {
    if (left_out.count(entry.first) != 0) continue;
    const auto change = std::find_if(added.begin(), added.end(), [&](const auto& a) { return a.first == entry.first; });
    result->push_back(change == added.end() ? entry : std::move(*change));
    if (change != added.end()) added.erase(change);
  }
  for (auto& entry : added) result->push_back(std::move(entry));
  return {result};
}

std::shared_ptr<const GgufMetadata> MetadataFrom(const py::object& metadata) {
  if (py::isinstance<PyMetadata>(metadata)) return metadata.cast<const PyMetadata&>().entries;
  return std::make_shared<const GgufMetadata>(FromPython(metadata.cast<py::dict>()));
}

}  // namespace edgequant
