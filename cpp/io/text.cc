#include "io/text.h"

#include <cstdint>
#include <cstring>

namespace edgequant {
namespace {

// C1 controls (U+0080 to U+009F) can drive a terminal just like the C0 ones. `length` is the character's.
bool IsControl(std::string_view text, size_t length) {
  const uint8_t first = uint8_t(text[0]);
  return first < 0x20 || first == 0x7F || (first == 0xC2 && length == 2 && uint8_t(text[1]) < 0xA0);
}

// Bytes of the UTF-8 character at the start of `text` (not empty), or 0 if it is malformed.
size_t CharacterLength(std::string_view text) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  // Table 3-7 of the Unicode standard: only the second byte's range depends on the first.
  size_t length;
  uint8_t low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  if (text.size() < length || byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return length;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    // Eight ASCII bytes at once: headers are almost only that.
    uint64_t eight;
    if (text.size() >= 8 && (std::memcpy(&eight, text.data(), 8), (eight & 0x8080808080808080u) == 0)) {
      text.remove_prefix(8);
      continue;
    }
    const size_t length = CharacterLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string Quote(std::string_view text) {
  constexpr size_t kLongest = 120;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    if (out.size() > kLongest) {
      out += "...";
      break;
    }
    size_t length = CharacterLength(text);
    if (length == 0 || IsControl(text, length)) {
      const uint8_t first = uint8_t(text[0]);
      out += "\\x";
      out += kHex[first >> 4];
      out += kHex[first & 15];
      length = 1;
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return out + '"';
}

std::string ShownPath(const std::string& path) {
  for (std::string_view rest = path; !rest.empty();) {
    const size_t length = CharacterLength(rest);
    if (length == 0 || IsControl(rest, length)) return Quote(path);
    rest.remove_prefix(length);
  }
  return path;
}

}  // namespace edgequant
