#include "trainer/base/signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <initializer_list>
#include <string_view>

#include "ops/error.h"

namespace qstep::trainer {
namespace {

// A handler can reach nothing but globals; this is the one of the program. 0: none yet.
std::atomic<int> first_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);  // else not allowed in a handler

void on_stop_signal(int number) {
  int expected = 0;
  if (first_signal.compare_exchange_strong(expected, number)) return;
  constexpr std::string_view kText =
      "qstep: second signal: ending at once without a save; older checkpoints are valid\n";
  // Nothing can be done when stderr is gone.
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(static_cast<int>(ops::ExitCode::kInterrupted));
}

void handle(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  // The others wait while a handler runs; system calls go on behind it.
  sigfillset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ops::check(::sigaction(number, &action, nullptr) == 0, "signals: sigaction failed");
}

}  // namespace

void install_signal_handlers() {
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) handle(number, on_stop_signal);
}

void ignore_stop_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) handle(number, SIG_IGN);
}

void ignore_write_signals() {
  for (const int number : {SIGPIPE, SIGXFSZ}) handle(number, SIG_IGN);
}

std::optional<int> stop_signal() {
  const int number = first_signal.load();
  return number == 0 ? std::nullopt : std::optional<int>(number);
}

}  // namespace qstep::trainer
