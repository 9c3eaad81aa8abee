// What this binary was built from and how; trainer/machine/build_info.cmake writes the source at
// every build.
#pragma once

#include <string_view>

namespace qstep::trainer {

struct BuildInfo {
  std::string_view version;   // "0.1.0"
  std::string_view revision;  // "e93a2a5", "e93a2a5 with changes", "unknown" outside of git
  std::string_view type;      // "Release"
  std::string_view flags;     // of the compiler, those that decide what is computed and how fast
  std::string_view compiler;  // "GNU 12.2.0"
};

const BuildInfo& build_info();

}  // namespace qstep::trainer
