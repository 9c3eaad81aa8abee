// Ending a process whose main thread may be stuck anywhere, with locks in its hands.
#pragma once

#include <functional>
#include <string_view>

#include "ops/error.h"

namespace qstep::parallel {

// Without stdio, whose lock somebody may hold; what nobody reads within a second is lost.
void write_stderr(std::string_view text);

// Gives `last_words` 5 s on a thread of their own, then leaves without destructors.
[[noreturn]] void end_process(ops::ExitCode code, std::function<void()> last_words);

}  // namespace qstep::parallel
