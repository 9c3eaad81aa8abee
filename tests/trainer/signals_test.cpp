#include "trainer/base/signals.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string>

namespace qstep::trainer {
namespace {

constexpr unsigned kPatience = 60;  // seconds

struct Outcome {
  int status = 0;  // of waitpid
  std::string stderr_text;
};

// Runs f in a child with the handlers installed.
template <class F>
Outcome in_child(F&& f) {
  int output[2];
  EXPECT_EQ(::pipe(output), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(kPatience);
    ::dup2(output[1], STDERR_FILENO);
    install_signal_handlers();
    ::_exit(f());
  }
  ::close(output[1]);
  Outcome outcome;
  std::array<char, 256> buffer{};
  for (ssize_t n = 0; (n = ::read(output[0], buffer.data(), buffer.size())) > 0;) {
    outcome.stderr_text.append(buffer.data(), static_cast<size_t>(n));
  }
  ::close(output[0]);
  EXPECT_EQ(::waitpid(child, &outcome.status, 0), child);
  return outcome;
}

constexpr std::array kStopSignals = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

TEST(Signals, FirstSetsTheFlagAndNothingElse) {
  for (const int number : kStopSignals) {
    const Outcome outcome = in_child([&] {
      if (stop_signal().has_value()) return 1;
      ::raise(number);
      return stop_signal() == number ? 0 : 2;
    });
    EXPECT_TRUE(WIFEXITED(outcome.status));
    EXPECT_EQ(WEXITSTATUS(outcome.status), 0) << number;
    EXPECT_EQ(outcome.stderr_text, "");
  }
}

TEST(Signals, SecondOfAnyKindEndsAtOnce) {
  for (const int first : kStopSignals) {
    for (const int second : kStopSignals) {
      const Outcome outcome = in_child([&] {
        ::raise(first);
        ::raise(second);
        return 0;
      });
      EXPECT_TRUE(WIFEXITED(outcome.status));
      EXPECT_EQ(WEXITSTATUS(outcome.status), 12) << first << " then " << second;
      EXPECT_NE(outcome.stderr_text.find("second signal"), std::string::npos);
      EXPECT_EQ(outcome.stderr_text.back(), '\n');
    }
  }
}

TEST(Signals, BrokenPipesAndSizeLimitsAreErrorsNotTheEnd) {
  const Outcome outcome = in_child([] {
    ignore_write_signals();
    int ends[2];
    if (::pipe(ends) != 0) return 1;
    ::close(ends[0]);
    if (::write(ends[1], "x", 1) != -1 || errno != EPIPE || stop_signal()) return 2;
    const rlimit none{.rlim_cur = 0, .rlim_max = 0};
    std::FILE* const file = std::tmpfile();
    if (file == nullptr || ::setrlimit(RLIMIT_FSIZE, &none) != 0) return 3;
    return ::write(::fileno(file), "x", 1) == -1 && errno == EFBIG ? 0 : 4;
  });
  EXPECT_TRUE(WIFEXITED(outcome.status));
  EXPECT_EQ(WEXITSTATUS(outcome.status), 0);
}

}  // namespace
}  // namespace qstep::trainer
