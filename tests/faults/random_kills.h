// SIGKILL at random instants of a loop of saves, and a resume after each.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <random>

namespace qstep::trainer::testing {

struct RandomKills {
  int trials = 0;
  uint64_t seed = 0;
  std::function<void(int64_t step)> save;  // by a child process
  std::function<bool()> left_temporaries;  // did the last kill come in the middle of a save?
  std::function<int64_t()> resume;         // cleans up, checks, returns the newest step
};

inline void kill_at_random_instants(const RandomKills& kills) {
  constexpr unsigned kPatience = 60;  // seconds after which a hanging child is ended by SIGALRM
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  kills.save(1);
  const int64_t save_us =
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
  // Instants spread over about two saves; not more, so that slow disks cost no minutes.
  const int64_t window_us = std::min<int64_t>(2 * save_us, 50'000);

  std::mt19937_64 random(kills.seed);
  int64_t newest = 1;
  int killed_in_a_save = 0;
  for (int trial = 0; trial < kills.trials; ++trial) {
    SCOPED_TRACE(fmt::format("trial {}", trial));
    int done[2];  // the child tells which saves have returned
    ASSERT_EQ(::pipe(done), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(kPatience);
      ::close(done[0]);
      char ready = 0;
      if (::write(done[1], &ready, 1) != 1) ::_exit(1);
      // The first one replaces the newest, as a run does that repeats its last steps.
      for (int64_t step = newest;; ++step) {
        kills.save(step);
        if (::write(done[1], &step, sizeof step) != sizeof step) ::_exit(1);
      }
    }
    ::close(done[1]);
    char ready = 1;
    ASSERT_EQ(::read(done[0], &ready, 1), 1);
    ::usleep(static_cast<useconds_t>(random() % static_cast<uint64_t>(window_us)));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int64_t returned = newest, step = 0;
    while (::read(done[0], &step, sizeof step) == sizeof step) returned = step;
    ::close(done[0]);

    killed_in_a_save += kills.left_temporaries();
    const int64_t found = kills.resume();
    EXPECT_GE(found, returned) << "a save that returned was lost";
    EXPECT_LE(found, returned + 1);
    newest = found;
  }
  // Otherwise the test would have tested nothing.
  EXPECT_GT(killed_in_a_save, kills.trials / 10);
}

}  // namespace qstep::trainer::testing
