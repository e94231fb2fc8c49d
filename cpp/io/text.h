// Text that comes from a file: it is checked before it is shown or kept.
#pragma once
#include <string>
#include <string_view>

namespace edgequant {

// True if `text` is well-formed UTF-8: shortest forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view text);

// `text` in quotation marks, fit for a message on a terminal: control characters and broken bytes become \xNN, and
// long text is cut.
std::string Quote(std::string_view text);

// A path as messages name it: as it is, or quoted where that would not be one line of valid text.
std::string ShownPath(const std::string& path);

}  // namespace edgequant
