// The one exception of edgequant: a clear sentence for the person who called.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace edgequant {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with all parts written one after another: Fail("file ", path, ": ", n, " bytes are missing").
template <class... Parts>
[[noreturn]] void Fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

}  // namespace edgequant
