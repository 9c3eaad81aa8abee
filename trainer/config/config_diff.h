// What differs between two configurations.
#pragma once

#include <string>

#include "trainer/config/config.h"

namespace qstep::trainer {

// The settings that only one of two texts of to_toml has, a line each: "  - model.width = 64"
// before, "  + model.width = 128" after. [run] is left out: it does not change what is computed.
std::string changed_settings(const std::string& before, const std::string& after);

// The same of what makes a model: [model] without the name of the preset and, with rotary
// positions, without the longest sequence. Empty when weights of one fit the other.
std::string changed_model(const Config& before, const Config& after);

// The same of what their recipes compute. Empty when the recipes differ in descriptions only.
std::string changed_recipe(const Config& before, const Config& after);

}  // namespace qstep::trainer
