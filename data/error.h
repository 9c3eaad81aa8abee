// The one exception of this room. Text says what happened, where, what was expected, what was found
// and what to do; main prints it once and ends with the exit code of the kind.
#pragma once

#include <stdexcept>
#include <string>

namespace qstep::data {

enum class ErrorKind {
  kData,  // unusable input: missing, damaged, foreign, out of range (exit code 21)
  kDisk,  // output cannot be written: disk full, read-only, quota (exit code 23)
};

struct Error : std::runtime_error {
  explicit Error(const std::string& text, ErrorKind error_kind = ErrorKind::kData)
      : std::runtime_error(text), kind(error_kind) {}
  ErrorKind kind;
};

}  // namespace qstep::data
