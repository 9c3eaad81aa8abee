// Stop signals: the first asks, the second ends.
#pragma once

#include <optional>

namespace qstep::trainer {

// SIGINT, SIGTERM, SIGUSR1 and SIGUSR2: the first of them sets a flag, the next one of any kind
// prints a line and leaves with code 12 (interrupted) at once. Throws Error
// (internal) when the system refuses.
void install_signal_handlers();

// From here on they do nothing: for a process that has saved and is about to end anyway, which a
// launcher may tell to end because another one already has.
void ignore_stop_signals();

// Writing to a closed pipe or past a size limit becomes an error of the call instead of the end of
// the process. For main, before anything else.
void ignore_write_signals();

// The signal that asked this process to stop.
std::optional<int> stop_signal();

}  // namespace qstep::trainer
