// A save is interrupted in every way: a crash or an error before each of its steps, SIGKILL at any
// instant, a file system that takes no more bytes. What was published before must always come back.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <limits>

#include "tests/faults/random_kills.h"
#include "tests/trainer/checkpoint_testing.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_folders.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using testing::code_of;
using testing::Contents;
using testing::holds_its_contents;
using testing::kill_at_random_instants;
using testing::names_in;
using testing::Storage;
using testing::TemporaryFolder;

constexpr int kCrashed = 77;        // exit code of a child that reached its crash point
constexpr unsigned kPatience = 60;  // seconds after which a hanging child is ended by SIGALRM

// Runs f in a child that ends with f's result; the status of waitpid.
template <class F>
int in_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(kPatience);
    int code = 99;
    try {
      code = f();
    } catch (const std::exception& error) {
      fmt::print(stderr, "child: {}\n", error.what());
    }
    ::_exit(code);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

bool is_temporary(const std::string& name) {
  for (const char* mark : {kTemporaryMark, kOldMark, kDeletedMark}) {
    if (name.find(mark) != std::string::npos) return true;
  }
  return false;
}

int64_t count_temporaries(const std::string& root) {
  const auto names = names_in(root);
  return std::count_if(names.begin(), names.end(), is_temporary);
}

// Resume logic in `root` after something went wrong: returns the step found, checks everything
// else.
int64_t resume(const std::string& root) {
  // A reader that only looks sees the same as the owner who cleans up first.
  const auto seen = newest_checkpoint(root, {});
  remove_stale_temporaries(root);
  EXPECT_EQ(count_temporaries(root), 0);
  const auto newest = newest_checkpoint(root, [](const CheckpointInfo& info) {
    ADD_FAILURE() << "published and not valid: " << info.problem;
  });
  EXPECT_EQ(seen.has_value(), newest.has_value());
  if (!newest) return 0;
  EXPECT_TRUE(holds_its_contents(*newest));
  return parse_folder_name(fs::path(*newest).filename().string())->step;
}

// A situation in which a save can be caught.
struct Scenario {
  const char* name;
  std::vector<int64_t> before;  // steps already saved
  int64_t step;                 // saved now
  int64_t keep_last;
};

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> list = {
      {"first save", {}, 1, 0},
      {"next save", {1}, 2, 0},
      {"save with retention", {1, 2, 3}, 4, 2},
      {"save again", {1, 2}, 2, 0},
      {"save the only one again", {1}, 1, 1},
  };
  return list;
}

void prepare(const std::string& root, const Scenario& scenario) {
  for (const int64_t step : scenario.before) Contents(step).save(root);
}

int count_steps(const Scenario& scenario) {
  const TemporaryFolder root(Storage::kMemory);
  prepare(root.path(), scenario);
  int steps = 0;
  Contents(scenario.step).save(root.path(), scenario.keep_last, [&](auto, const auto&) {
    ++steps;
    return 0;
  });
  return steps;
}

// Leaves the process before step number `at`.
StepHook crash_before(int at) {
  return [at, count = 0](std::string_view, const std::string&) mutable {
    if (count++ == at) ::_exit(kCrashed);
    return 0;
  };
}

TEST(CheckpointFaults, CrashBeforeEveryStepOfASave) {
  for (const Scenario& scenario : scenarios()) {
    const int steps = count_steps(scenario);
    const int64_t old = scenario.before.empty() ? 0 : scenario.before.back();
    bool published = false;
    for (int at = 0; at < steps; ++at) {
      SCOPED_TRACE(fmt::format("{}, crash before step {} of {}", scenario.name, at, steps));
      const TemporaryFolder root(Storage::kMemory);
      prepare(root.path(), scenario);
      const int status = in_child([&] {
        Contents(scenario.step).save(root.path(), scenario.keep_last, crash_before(at));
        return 0;
      });
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kCrashed);
      const int64_t found = resume(root.path());
      EXPECT_TRUE(found == old || found == scenario.step) << found;
      // Once the rename is done there is no way back.
      published = published || (found == scenario.step && found != old);
      if (published) {
        EXPECT_EQ(found, scenario.step);
      }
      Contents(9).save(root.path(), 1);
      EXPECT_EQ(names_in(root.path()), (std::vector<std::string>{"latest", "step-00000009"}));
      EXPECT_TRUE(holds_its_contents(root / "step-00000009"));
    }
    EXPECT_TRUE(published || old == scenario.step);
  }
}

TEST(CheckpointFaults, CrashWhileCleaningUpAfterACrash) {
  const Scenario scenario = {"save the only one again", {1}, 1, 0};
  const int steps = count_steps(scenario);
  for (int at = 0; at < steps; ++at) {
    for (int at_cleaning = 0; at_cleaning < 4; ++at_cleaning) {
      SCOPED_TRACE(fmt::format("crash before step {}, then {}", at, at_cleaning));
      const TemporaryFolder root(Storage::kMemory);
      prepare(root.path(), scenario);
      in_child([&] {
        Contents(scenario.step).save(root.path(), 0, crash_before(at));
        return 0;
      });
      in_child([&] {
        remove_stale_temporaries(root.path(), crash_before(at_cleaning));
        return 0;
      });
      EXPECT_EQ(resume(root.path()), 1);
    }
  }
}

TEST(CheckpointFaults, ErrorInEveryStepOfASave) {
  constexpr std::array kCodes = {ENOSPC, EDQUOT, EROFS, EIO};
  size_t turn = 0;  // shifts the codes so that a step meets several of them over the scenarios
  for (const Scenario& scenario : scenarios()) {
    const int steps = count_steps(scenario);
    const int64_t old = scenario.before.empty() ? 0 : scenario.before.back();
    for (int at = 0; at < steps; ++at) {
      const int code = kCodes[turn++ % kCodes.size()];
      SCOPED_TRACE(fmt::format("{}, errno {} in step {} of {}", scenario.name, code, at, steps));
      const TemporaryFolder root(Storage::kMemory);
      prepare(root.path(), scenario);
      std::string failed_path, text;
      const auto hook = [&, count = 0](std::string_view, const std::string& path) mutable {
        if (count++ != at) return 0;
        failed_path = path;
        return code;
      };
      EXPECT_EQ(
          code_of([&] { Contents(scenario.step).save(root.path(), scenario.keep_last, hook); },
                  &text),
          ops::ExitCode::kDisk);
      EXPECT_NE(text.find(failed_path), std::string::npos) << text;
      EXPECT_NE(text.find(std::strerror(code)), std::string::npos) << text;
      EXPECT_NE(text.find(';'), std::string::npos) << "no advice: " << text;
      // Only the removal of something old may leave a temporary behind.
      for (const std::string& name : names_in(root.path())) {
        EXPECT_EQ(name.find(kTemporaryMark), std::string::npos) << name;
      }
      const int64_t found = resume(root.path());
      EXPECT_TRUE(found == old || found == scenario.step) << found;
      Contents(9).save(root.path(), 1);
      EXPECT_EQ(resume(root.path()), 9);
    }
  }
}

// A limit on the size of files acts like a full disk in the middle of a write (errno EFBIG).
TEST(CheckpointFaults, FileSystemThatTakesNoMoreBytes) {
  constexpr int64_t kScale = 200;  // about 100 kB of tensors
  constexpr int kDiskError = 23;
  const TemporaryFolder root;
  Contents(1).save(root.path());
  for (const rlim_t limit : {0, 1, 100, 800, 2048, 4000, 30000, 60000, 90000, 96000, 98000}) {
    SCOPED_TRACE(fmt::format("files of at most {} bytes", limit));
    // exit, not _exit: the HDF5 library must come to its end after a failed write.
    const int status = in_child([&]() -> int {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit size = {limit, limit};
      if (::setrlimit(RLIMIT_FSIZE, &size) != 0) return 98;
      std::string text;
      const auto code = code_of([&] { Contents(2, kScale).save(root.path()); }, &text);
      if (code == ops::ExitCode::kDisk && text.find("step-00000002") == std::string::npos)
        return 97;
      std::exit(static_cast<int>(code));
    });
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), kDiskError);
    EXPECT_EQ(count_temporaries(root.path()), 0);
    EXPECT_EQ(resume(root.path()), 1);
  }
}

// The next save of the same process works as soon as there is room again.
TEST(CheckpointFaults, ContinuesAfterAFullDisk) {
  constexpr int64_t kScale = 200;
  const TemporaryFolder root;
  const int status = in_child([&]() -> int {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit size{};
    if (::getrlimit(RLIMIT_FSIZE, &size) != 0) return 98;
    for (const rlim_t limit : {800, 60000, 96000}) {
      const rlimit lowered = {limit, size.rlim_max};
      if (::setrlimit(RLIMIT_FSIZE, &lowered) != 0) return 98;
      std::string text;
      const auto code = code_of([&] { Contents(2, kScale).save(root.path()); }, &text);
      if (code != ops::ExitCode::kDisk) return 97;
      if (text.find(std::strerror(EFBIG)) == std::string::npos) return 96;
      if (::setrlimit(RLIMIT_FSIZE, &size) != 0) return 98;
      Contents(1).save(root.path());
      if (!holds_its_contents(root / "step-00000001")) return 95;
    }
    return 0;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(names_in(root.path()), (std::vector<std::string>{"latest", "step-00000001"}));
}

TEST(CheckpointFaults, TooLittleFreeSpaceIsSeenBeforeAnythingIsWritten) {
  const TemporaryFolder root;
  std::string text;
  const auto code = code_of(
      [&] { CheckpointFiles().require_space(root.path(), std::numeric_limits<int64_t>::max()); },
      &text);
  EXPECT_EQ(code, ops::ExitCode::kDisk);
  EXPECT_NE(text.find("MiB free"), std::string::npos) << text;
}

void killed_in_saves(Storage storage, int trials, uint64_t seed) {
  constexpr int64_t kKeepLast = 2;
  const TemporaryFolder root(storage);
  kill_at_random_instants(
      {.trials = trials,
       .seed = seed,
       .save = [&](int64_t step) { Contents(step).save(root.path(), kKeepLast); },
       .left_temporaries = [&] { return count_temporaries(root.path()) > 0; },
       .resume = [&] { return resume(root.path()); }});
}

TEST(CheckpointFaults, KilledAtAnyInstant) { killed_in_saves(Storage::kMemory, 300, 31); }

TEST(CheckpointFaults, KilledAtAnyInstantOnDisk) { killed_in_saves(Storage::kDisk, 50, 32); }

}  // namespace
}  // namespace qstep::trainer
