// What other programs print.
#pragma once

#include <stdio.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>

namespace qstep::test {

// Standard output of a shell command.
inline std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  if (!pipe) throw std::runtime_error("popen failed");
  std::string output;
  std::array<char, 4096> block;
  while (const size_t n = fread(block.data(), 1, block.size(), pipe.get())) {
    output.append(block.data(), n);
  }
  return output;
}

inline std::string first_line_of(const std::string& command) {
  const std::string output = output_of(command);
  return output.substr(0, output.find('\n'));
}

}  // namespace qstep::test
