// --device of commands that compute without a configuration of a run: make_backend's choice.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "trainer/config/config_options.h"

namespace qstep::trainer {

inline void add_device_option(CLI::App& command, Device& device) {
  std::vector<std::string> names;
  for (const auto& [name, value] : kDeviceNames) names.emplace_back(name);
  command
      .add_option_function<std::string>(
          "--device",
          [&device](const std::string& word) {
            for (const auto& [name, value] : kDeviceNames) {
              if (name == word) device = value;
            }
          },
          "what computes; auto: the GPU where there is one")
      ->check(CLI::IsMember(names))
      ->default_str(std::string(choice_name(device)));
}

}  // namespace qstep::trainer
