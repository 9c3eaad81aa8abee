// Names of parameterized tests, which may have no hyphen.
#pragma once

#include <algorithm>
#include <string>

namespace qstep::test {

// "fp8-delayed": "fp8_delayed"
inline std::string test_name(std::string parameter) {
  std::replace(parameter.begin(), parameter.end(), '-', '_');
  return parameter;
}

}  // namespace qstep::test
