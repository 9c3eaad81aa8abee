// A node of toml++ as the Value that options are read from.
#pragma once

#include <toml++/toml.h>

#include "trainer/config/config_value.h"

namespace qstep::trainer {

inline Value to_value(const toml::node& node) {
  if (const auto* x = node.as_boolean()) return x->get();
  if (const auto* x = node.as_integer()) return x->get();
  if (const auto* x = node.as_floating_point()) return x->get();
  if (const auto* x = node.as_string()) return x->get();
  if (node.is_table()) return Other{"table"};
  if (node.is_array()) return Other{"array"};
  return Other{"date or time"};
}

}  // namespace qstep::trainer
