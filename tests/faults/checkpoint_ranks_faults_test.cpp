// One of several ranks fails, crashes or disappears before each step of its part of a save. All
// ranks must learn of it, and what was published before must come back.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "tests/faults/random_kills.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/ranks_testing.h"
#include "trainer/checkpoint/checkpoint_folders.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using ops::ExitCode;
using parallel::Comm;
using test::run_ranks;
using testing::code_of;
using testing::Contents;
using testing::GlobalTensors;
using testing::names_in;
using testing::Piece;
using testing::Random;
using testing::Storage;
using testing::TemporaryFolder;

constexpr int kRanks = 3;
constexpr size_t kTensors = 2;      // few, as every step of a save is tried
constexpr int kCrashed = 77;        // exit code of a child that reached its crash point
constexpr unsigned kPatience = 60;  // seconds after which a hanging child is ended by SIGALRM

// Step `step` of a run; tensors and how they are cut follow from it.
class Save {
 public:
  explicit Save(int64_t step) : step_(step), tensors_(static_cast<uint64_t>(step), kTensors) {
    Random random(static_cast<uint64_t>(1000 + step));
    pieces_ = tensors_.cut(random, kRanks);
  }

  void by(Comm& comm, const std::string& root, const StepHook& hook = {},
          int64_t keep_last = 0) const {
    tensors_.save(comm, root, Contents(step_).state(), pieces_, hook, keep_last);
  }
  void by_all(const std::string& root, int64_t keep_last = 0) const {
    run_ranks(kRanks, [&](Comm& comm) { by(comm, root, {}, keep_last); });
  }
  // With `hook` on `rank` alone.
  void by_all(const std::string& root, int rank, const StepHook& hook) const {
    run_ranks(kRanks, [&](Comm& comm) { by(comm, root, comm.rank() == rank ? hook : StepHook()); });
  }
  bool is_in(const std::string& path) const {
    const CheckpointReader reader(path);
    for (const Piece& piece : pieces_) {
      if (!tensors_.agrees(reader, piece)) return false;
    }
    return reader.state().step == step_;
  }

 private:
  int64_t step_;
  GlobalTensors tensors_;
  std::vector<Piece> pieces_;
};

// The step that a run in `root` resumes from, everything else checked.
int64_t resume(const std::string& root) {
  int64_t step = 0;
  run_ranks(2, [&](Comm& comm) {
    remove_stale_temporaries(comm, root);
    const auto newest = newest_checkpoint(comm, root, [](const CheckpointInfo& info) {
      ADD_FAILURE() << "published and not valid: " << info.problem;
    });
    if (comm.rank() != 0 || !newest) return;
    step = parse_folder_name(fs::path(*newest).filename().string())->step;
    EXPECT_TRUE(Save(step).is_in(*newest));
  });
  for (const std::string& name : names_in(root)) {
    EXPECT_TRUE(name == kLatestFile || name.size() == step_folder(1).size()) << name;
  }
  return step;
}

// Calls f before step number `at`.
template <class F>
StepHook at_step(int at, F f) {
  return [at, f, count = 0](std::string_view, const std::string& path) mutable {
    return count++ == at ? f(path) : 0;
  };
}

// Saving `step` when the newest checkpoint is `old`.
struct Scenario {
  int64_t old;
  int64_t step;
};
constexpr std::array kScenarios = {Scenario{1, 2}, Scenario{2, 2}};

// Calls f(root, scenario, rank, at) for every step of the first rank and of another one in every
// scenario.
template <class F>
void for_every_step(F&& f) {
  for (const Scenario& scenario : kScenarios) {
    for (const int rank : {0, 2}) {  // 1 is like 2
      int steps = std::numeric_limits<int>::max();
      for (int at = -1; at < steps; ++at) {
        SCOPED_TRACE(fmt::format("step {} after {}, rank {} before step {} of {}", scenario.step,
                                 scenario.old, rank, at, steps));
        const TemporaryFolder root(Storage::kMemory);
        Save(scenario.old).by_all(root.path());
        if (at < 0) {  // counts them
          int count = 0;
          Save(scenario.step).by_all(root.path(), rank, [&](auto, const auto&) {
            ++count;
            return 0;
          });
          steps = count;
          EXPECT_GT(steps, 4);
          continue;
        }
        f(root.path(), scenario, rank, at);
        const int64_t found = resume(root.path());
        // Only rank 0 has steps behind the publication.
        EXPECT_TRUE(found == scenario.old || (rank == 0 && found == scenario.step)) << found;
        Save(9).by_all(root.path());
        EXPECT_TRUE(Save(9).is_in(root / step_folder(9)));
      }
    }
  }
}

TEST(CheckpointRanksFaults, ErrorOnOneRankEndsTheSaveOnAll) {
  constexpr std::array kCodes = {ENOSPC, EDQUOT, EROFS, EIO};
  size_t turn = 0;
  for_every_step([&](const std::string& root, const Scenario& scenario, int rank, int at) {
    const int code = kCodes[turn++ % kCodes.size()];
    std::string failed_path;
    std::array<std::string, kRanks> texts;
    run_ranks(kRanks, [&](Comm& comm) {
      const StepHook hook = at_step(at, [&](const std::string& path) {
        failed_path = path;
        return code;
      });
      EXPECT_EQ(
          code_of(
              [&] { Save(scenario.step).by(comm, root, comm.rank() == rank ? hook : StepHook()); },
              &texts[static_cast<size_t>(comm.rank())]),
          ExitCode::kDisk);
    });
    for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
    EXPECT_NE(texts[0].find(failed_path), std::string::npos) << texts[0];
    EXPECT_NE(texts[0].find(std::strerror(code)), std::string::npos) << texts[0];
    if (rank != 0) {
      EXPECT_TRUE(texts[0].starts_with(fmt::format("rank {}: ", rank))) << texts[0];
    }
    for (const std::string& name : names_in(root)) {
      EXPECT_EQ(name.find(kTemporaryMark), std::string::npos) << name;
    }
  });
}

TEST(CheckpointRanksFaults, CrashOfTheJob) {
  for_every_step([&](const std::string& root, const Scenario& scenario, int rank, int at) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(kPatience);
      Save(scenario.step).by_all(root, rank, at_step(at, [](const std::string&) -> int {
                                   ::_exit(kCrashed);
                                 }));
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kCrashed);
  });
}

// The others wait for it in vain and must not publish.
TEST(CheckpointRanksFaults, OneRankDisappears) {
  struct Gone {};
  for_every_step([&](const std::string& root, const Scenario& scenario, int rank, int at) {
    std::array<ExitCode, kRanks> codes{};
    const StepHook hook = at_step(at, [](const std::string&) -> int { throw Gone(); });
    EXPECT_THROW(
        run_ranks(kRanks,
                  [&](Comm& comm) {
                    codes[static_cast<size_t>(comm.rank())] = code_of([&] {
                      Save(scenario.step).by(comm, root, comm.rank() == rank ? hook : StepHook());
                    });
                  }),
        Gone);
    for (int r = 0; r < kRanks; ++r) {
      if (r == rank) continue;
      EXPECT_EQ(codes[static_cast<size_t>(r)], ExitCode::kPeerDied);
    }
  });
}

TEST(CheckpointRanksFaults, KilledAtAnyInstant) {
  constexpr int64_t kKeepLast = 2;
  const TemporaryFolder root(Storage::kMemory);
  const auto left_temporaries = [&] {
    const std::vector<std::string> names = names_in(root.path());
    return std::any_of(names.begin(), names.end(), [](const std::string& name) {
      return name != kLatestFile && name.find('.') != std::string::npos;
    });
  };
  testing::kill_at_random_instants(
      {.trials = 100,
       .seed = 33,
       .save = [&](int64_t step) { Save(step).by_all(root.path(), kKeepLast); },
       .left_temporaries = left_temporaries,
       .resume = [&] { return resume(root.path()); }});
}

}  // namespace
}  // namespace qstep::trainer
