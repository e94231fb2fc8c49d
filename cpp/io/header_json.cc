#include "io/header_json.h"

#include "core/error.h"
#include "io/text.h"

namespace edgequant {
namespace {

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    *out += char(c);
  } else if (c < 0x800) {
    *out += char(0xC0 | c >> 6);
    *out += char(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *out += char(0xE0 | c >> 12);
    *out += char(0x80 | (c >> 6 & 63));
    *out += char(0x80 | (c & 63));
  } else {
    *out += char(0xF0 | c >> 18);
    *out += char(0x80 | (c >> 12 & 63));
    *out += char(0x80 | (c >> 6 & 63));
    *out += char(0x80 | (c & 63));
  }
}

}  // namespace

void HeaderJson::FailHere(const std::string& problem) const {
  Fail(name_, ": the header is not valid: at byte ", at_, " ", problem, ", found ",
       at_ < text_.size() ? Quote(text_.substr(at_, 16)) : std::string("its end"));
}

void HeaderJson::SkipSpace() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
    ++at_;
}

bool HeaderJson::Accept(char c) {
  SkipSpace();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void HeaderJson::Expect(char c) {
  if (!Accept(c)) FailHere(std::string("expected '") + c + "'");
}

void HeaderJson::ExpectEnd() {
  SkipSpace();
  if (at_ < text_.size()) FailHere("expected nothing more");
}

char32_t HeaderJson::HexEscape() {
  char32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) FailHere("expected four hexadecimal digits");
    value = value << 4 | char32_t(digit);
    ++at_;
  }
  return value;
}

void HeaderJson::Escape(std::string* out) {
  constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
  if (at_ >= text_.size()) FailHere("expected the rest of an escape");
  const char c = text_[at_];
  if (const size_t k = kNames.find(c); k != std::string_view::npos) {
    ++at_;
    *out += kValues[k];
    return;
  }
  if (c != 'u') FailHere("expected an escape");
  ++at_;
  char32_t value = HexEscape();
  if (value >= 0xDC00 && value <= 0xDFFF) FailHere("expected no second half of a surrogate pair alone");
  if (value >= 0xD800 && value <= 0xDBFF) {
    if (text_.substr(at_, 2) != "\\u") FailHere("expected the second half of a surrogate pair");
    at_ += 2;
    const char32_t low = HexEscape();
    if (low < 0xDC00 || low > 0xDFFF) FailHere("expected the second half of a surrogate pair before");
    value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
  }
  AppendUtf8(value, out);
}

// The caller has checked that all of the text is UTF-8.
std::string HeaderJson::String() {
  Expect('"');
  std::string out;
  for (;;) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' && uint8_t(text_[at_]) >= 0x20) ++at_;
    out += text_.substr(begin, at_ - begin);
    if (at_ >= text_.size()) FailHere("expected the end of a string");
    const char c = text_[at_];
    if (c != '"' && c != '\\') FailHere("expected no control character in a string");
    ++at_;
    if (c == '"') return out;
    Escape(&out);
  }
}

uint64_t HeaderJson::Integer() {
  SkipSpace();
  const size_t begin = at_;
  uint64_t value = 0;
  bool fits = true;
  for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
    fits = fits && !__builtin_mul_overflow(value, uint64_t(10), &value) &&
           !__builtin_add_overflow(value, uint64_t(text_[at_] - '0'), &value);
  const size_t digits = at_ - begin;
  const bool more = at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E');
  if (digits == 0 || more || (digits > 1 && text_[begin] == '0')) {
    at_ = begin;
    FailHere("expected an integer, zero or above");
  }
  if (!fits) {
    at_ = begin;
    FailHere("expected an integer below 2^64");
  }
  return value;
}

std::vector<uint64_t> HeaderJson::Integers() {
  std::vector<uint64_t> out;
  Expect('[');
  if (Accept(']')) return out;
  do {
    out.push_back(Integer());
  } while (Accept(','));
  Expect(']');
  return out;
}

}  // namespace edgequant
