#include "ops/error.h"

namespace qstep::ops {

void throw_broken(std::string_view what, std::source_location where) {
  throw Error(ExitCode::kInternal,
              fmt::format("{} at {}:{}", what, where.file_name(), where.line()));
}

void throw_unequal(const std::string& expected, const std::string& found, std::string_view what,
                   std::source_location where) {
  throw Error(ExitCode::kInternal, fmt::format("{}: expected {}, found {} at {}:{}", what, expected,
                                               found, where.file_name(), where.line()));
}

}  // namespace qstep::ops
