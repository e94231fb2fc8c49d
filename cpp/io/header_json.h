// A cursor over the JSON of a safetensors header: objects, strings and lists of non-negative integers are all that the
// format has, so the caller asks for what must come next and there is no recursion.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace edgequant {

class HeaderJson {
 public:
  // `text` must outlive the cursor; `name` is the file that messages name.
  HeaderJson(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  void Expect(char c);  // skips white space; throws Error unless c follows
  bool Accept(char c);  // the same, but says whether c followed
  void ExpectEnd();     // nothing but white space is left
  std::string String();
  uint64_t Integer();
  std::vector<uint64_t> Integers();  // [1, 2, 3]

  // Calls member(key) at the value of each member of an object, which it must read.
  template <class Member>
  void Object(const Member& member) {
    Expect('{');
    if (Accept('}')) return;
    do {
      const std::string key = String();
      Expect(':');
      member(key);
    } while (Accept(','));
    Expect('}');
  }

 private:
  void SkipSpace();
  char32_t HexEscape();
  void Escape(std::string* out);
  [[noreturn]] void FailHere(const std::string& problem) const;

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
};

}  // namespace edgequant
