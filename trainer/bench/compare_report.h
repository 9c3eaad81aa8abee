// A comparison for people: the table of the command line, and compare.md.
#pragma once

#include <string>

#include "trainer/bench/compare_state.h"

namespace qstep::trainer {

// Aligned lines.
std::string compare_text(const CompareState& state, const AbbaOptions& options);

// The same as Markdown, with how it was measured.
std::string compare_markdown(const CompareState& state, const AbbaOptions& options);

}  // namespace qstep::trainer
