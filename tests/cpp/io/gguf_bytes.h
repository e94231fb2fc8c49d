// GGUF files put together byte by byte, without the writer.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace edgequant::gguf_bytes {

template <class T>
std::string Le(T value) {
  std::string out;
  for (size_t i = 0; i < sizeof(T); ++i) out += char(uint64_t(value) >> (8 * i));
  return out;
}
inline std::string Text(const std::string& s) { return Le(uint64_t(s.size())) + s; }
inline std::string Key(const std::string& name, uint32_t type, const std::string& value) {
  return Text(name) + Le(type) + value;
}
inline std::string Array(uint32_t type, uint64_t count, const std::string& elements) {
  return Le(type) + Le(count) + elements;
}
// dims in the file's order, the innermost first.
inline std::string Info(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string out = Text(name) + Le(uint32_t(dims.size()));
  for (const uint64_t d : dims) out += Le(d);
  return out + Le(type) + Le(offset);
}
inline std::string File(const std::vector<std::string>& keys, const std::vector<std::string>& infos,
                        const std::string& data, uint32_t version = 3, size_t alignment = 32) {
  std::string out = "GGUF" + Le(version) + Le(uint64_t(infos.size())) + Le(uint64_t(keys.size()));
  for (const std::string& key : keys) out += key;
  for (const std::string& info : infos) out += info;
  if (!data.empty()) out.append((alignment - out.size() % alignment) % alignment, '\0');
  return out + data;
}

}  // namespace edgequant::gguf_bytes
