// Whole runs on several ranks that end badly: a rank dies, stops or fails alone, or all refuse. All
// end, each with its code, the user is told once, and the run goes on from what it saved.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/compare.h"
#include "tests/trainer/ranks_fixture.h"
#include "trainer/checkpoint/checkpoint_folders.h"

namespace qstep::trainer::testing {
namespace {

namespace fs = std::filesystem;

class Endings : public RanksTest {
 protected:
  // The one line that tells why, and what exit_reason.json says: both have every text of `says`.
  void expect_told_once(const MpiRun& run, const std::string& name, int code, int rank,
                        const Words& says) const {
    const std::vector<std::string> lines = run.error_lines();
    ASSERT_EQ(1u, lines.size()) << run.log();
    const Json reason = exit_reason(name);
    ASSERT_TRUE(reason.is_object()) << run.log();
    EXPECT_EQ(code, reason.at("code"));
    EXPECT_EQ(rank, reason.at("rank"));
    for (const std::string& text : says) {
      EXPECT_NE(std::string::npos, lines[0].find(text)) << lines[0];
      EXPECT_NE(std::string::npos, reason.at("what").get<std::string>().find(text)) << reason;
    }
  }
};

TEST_F(Endings, ARankIsKilled) {
  const Words length{"train.steps=90",   "train.global_batch=4", "train.eval_every=2",
                     "run.save_every=3", "train.eval_batches=6", "run.keep_last=2"};
  finish("whole", 1, length);
  test::Random random(2104);
  int64_t step = 0;
  for (const int rank : {0, 3, 1}) {
    SCOPED_TRACE(fmt::format("rank {}", rank));
    MpiRun run(notes(), 4, train("part", length));
    ASSERT_TRUE(wait_for_steps(run, "part", step + 4)) << run.log();
    std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 20'000)));
    run.signal(rank, SIGKILL);
    std::vector<int> codes = codes_of(4, 40);
    codes[static_cast<size_t>(rank)] = 128 + SIGKILL;
    ASSERT_EQ(codes, run.wait_codes()) << run.log();
    expect_told_once(run, "part", 40, rank == 0 ? 1 : 0,
                     {fmt::format("rank {} (", rank), "died (connection"});
    EXPECT_TRUE(run.left_nothing());
    step = steps_done("part");
  }
  finish("part", 2, length);
  expect_same_run("whole", "part", 90);
}

// Each time in a save, or right behind it: older checkpoints stay what they were, and what a dead
// rank left half done is none.
TEST_F(Endings, ARankIsKilledInsideASave) {
  const Words length{"train.steps=60", "train.global_batch=4", "train.eval_every=20",
                     "run.save_every=1", "run.keep_last=3"};
  finish("whole", 1, length);
  const std::string root = dir("part") + "/checkpoints";
  const auto saving = [&] {
    const std::vector<std::string> names = names_in(root);
    return std::any_of(names.begin(), names.end(), [](const std::string& name) {
      return name.find(kTemporaryMark) != std::string::npos;
    });
  };
  test::Random random(2105);
  int inside = 0;
  for (const int rank : {0, 2, 1, 3}) {
    SCOPED_TRACE(fmt::format("rank {}", rank));
    MpiRun run(notes(), 4, train("part", length));
    ASSERT_TRUE(wait_for_steps(run, "part", steps_done("part") + 4)) << run.log();
    ASSERT_TRUE(run.wait_for(saving)) << run.log();
    std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 3000)));
    run.signal(rank, SIGKILL);
    std::vector<int> codes = codes_of(4, 40);
    codes[static_cast<size_t>(rank)] = 128 + SIGKILL;
    ASSERT_EQ(codes, run.wait_codes()) << run.log();
    expect_told_once(run, "part", 40, rank == 0 ? 1 : 0, {fmt::format("rank {} (", rank)});
    inside += run.log().find("in the phase save") != std::string::npos ? 1 : 0;
    EXPECT_TRUE(run.left_nothing());
    for (const CheckpointInfo& saved : list_checkpoints(root, Verify::kFull)) {
      EXPECT_EQ("", saved.problem);
    }
    const std::string latest = text_of(root + "/latest");
    EXPECT_EQ("",
              verify_checkpoint(root + "/" + latest.substr(0, latest.find(' ')), Verify::kFull));
  }
  EXPECT_GT(inside, 0);
  finish("part", 2, length);
  expect_same_run("whole", "part", 60);
  EXPECT_FALSE(saving());
}

// As it happens to people: mpirun sees the death as well, and gives the others a second.
TEST_F(Endings, ARankIsKilledAndMpirunEndsTheOthers) {
  const Words length{"train.steps=60", "train.global_batch=4", "run.save_every=5"};
  finish("whole", 1, length);
  {
    MpiRun run(notes(), 4, train("part", length), EndedBy::kMpirun);
    ASSERT_TRUE(wait_for_steps(run, "part", 10)) << run.log();
    run.signal(2, SIGKILL);
    // That of the rank whose end mpirun hears of first.
    const int code = run.wait().value_or(0);
    EXPECT_TRUE(code == 128 + SIGKILL || code == 40) << code << "\n" << run.log();
    EXPECT_TRUE(run.left_nothing());
  }
  finish("part", 4, length);
  expect_same_run("whole", "part", 60);
}

// Both at once: most of it is waiting.
TEST_F(Endings, ARankStops) {
  const auto words = [&](int rank) {
    return train(std::to_string(rank), {"train.steps=1000000", "train.global_batch=4",
                                        "train.eval_every=0", "run.hang_limit_s=6"});
  };
  MpiRun first(dir("notes0"), 4, words(0)), third(dir("notes2"), 4, words(2));
  for (const int rank : {0, 2}) {
    MpiRun& run = rank == 0 ? first : third;
    ASSERT_TRUE(wait_for_steps(run, std::to_string(rank), 5)) << run.log();
    run.signal(rank, SIGSTOP);
  }
  for (const int rank : {0, 2}) {
    SCOPED_TRACE(fmt::format("rank {}", rank));
    MpiRun& run = rank == 0 ? first : third;
    const std::string name = std::to_string(rank);
    for (int other = (rank + 1) % 4; other != rank; other = (other + 1) % 4) {
      EXPECT_EQ(41, run.wait_code(other)) << run.log();
    }
    const int teller = rank == 0 ? 1 : 0;
    const Words says{fmt::format("rank {} (", rank), "hangs"};
    expect_told_once(run, name, 41, teller, says);
    // It wakes up among the dead, ends as well, and does not write over what they said.
    run.signal(rank, SIGCONT);
    const int its_code = run.wait_code(rank).value_or(-1);
    EXPECT_TRUE(its_code == 40 || its_code == 41) << its_code << "\n" << run.log();
    EXPECT_EQ(teller, exit_reason(name).at("rank")) << exit_reason(name);
    EXPECT_TRUE(run.left_nothing());
  }
}

// A store of three chunks, the short last one damaged where one rank reads it.
TEST_F(Endings, ARankFindsItsDataDamaged) {
  fs::create_directories(dir("sound"));
  fs::create_directories(dir("damaged"));
  const std::string sound = dir("sound") + "/long.h5";
  {
    data::TokenStoreWriter writer(sound, {.tokenizer = "bytes",
                                          .model = "",
                                          .vocab_size = 257,
                                          .eos_id = 256,
                                          .source = "made by a test"});
    std::vector<uint32_t> ids(2 * data::kChunkTokens, 'a');
    ids.insert(ids.end(), 4000, 'z');  // only these lie in the last chunk
    writer.append(data::Part::kTrain, ids, ids.size());
    writer.end_document(data::Part::kTrain);
    writer.finish();
  }
  std::string bytes = text_of(sound);
  const size_t run_of_z = bytes.find(std::string("z\0z\0z\0z\0z\0z\0z\0z\0", 16));
  ASSERT_NE(std::string::npos, run_of_z);
  bytes[run_of_z] ^= 1;
  std::ofstream(dir("damaged") + "/long.h5", std::ios::binary) << bytes;

  const Words words =
      train("run", {"data.train=long.h5", "train.steps=100000", "train.eval_every=0"});
  MpiRun run(notes(), std::vector<RankStart>{{words, dir("sound")},
                                             {words, dir("sound")},
                                             {words, dir("damaged")},
                                             {words, dir("sound")}});
  ASSERT_EQ((std::vector<int>{40, 40, 21, 40}), run.wait_codes()) << run.log();
  expect_told_once(run, "run", 21, 0, {"rank 2", "long.h5"});
  EXPECT_TRUE(run.left_nothing());
}

class FullDisk : public Endings {
 protected:
  // The largest file that the rank may write from now on: what is beyond fails as on a full disk.
  static void limit_files(MpiRun& run, int rank, size_t bytes) {
    const rlimit limit{bytes, RLIM_INFINITY};
    ASSERT_EQ(0, ::prlimit(run.pid(rank), RLIMIT_FSIZE, &limit, nullptr));
  }
  const Words words_{"train.steps=1000000", "train.global_batch=4", "train.eval_every=0",
                     "run.save_every=5"};
};

// Its row of a step does not fit: nobody else knows.
TEST_F(FullDisk, OfTheRankThatWritesTheRows) {
  MpiRun run(notes(), 4, train("run", words_));
  ASSERT_TRUE(wait_for_steps(run, "run", 1)) << run.log();
  limit_files(run, 0, text_of(metrics("run")).size() + 500);
  ASSERT_EQ((std::vector<int>{23, 40, 40, 40}), run.wait_codes()) << run.log();
  expect_told_once(run, "run", 23, 0, {"metrics.jsonl"});
  EXPECT_TRUE(run.left_nothing());
}

// The same of a rank's own rows.
TEST_F(FullDisk, OfARankThatWritesItsTimes) {
  MpiRun run(notes(), 4, train("run", words_));
  ASSERT_TRUE(wait_for_steps(run, "run", 1)) << run.log();
  limit_files(run, 2, text_of(dir("run") + "/metrics.rank00002.jsonl").size() + 500);
  ASSERT_EQ((std::vector<int>{40, 40, 23, 40}), run.wait_codes()) << run.log();
  expect_told_once(run, "run", 23, 0, {"rank 2", "metrics.rank00002.jsonl"});
  EXPECT_TRUE(run.left_nothing());
}

// Nor can it say so: its code does.
TEST_F(FullDisk, OfARankWhoseLogIsThereToo) {
  MpiRun run(notes(), 4, train("run", words_));
  ASSERT_TRUE(wait_for_steps(run, "run", 1)) << run.log();
  limit_files(run, 2, 10);
  ASSERT_EQ((std::vector<int>{40, 40, 23, 40}), run.wait_codes()) << run.log();
  EXPECT_TRUE(run.left_nothing());
}

// Its part of a checkpoint does not fit: all give the save up, and end together.
TEST_F(FullDisk, OfARankThatSaves) {
  Words words = words_;
  words.push_back("timing.level=off");  // it writes nothing else
  MpiRun run(notes(), 4, train("run", words));
  ASSERT_TRUE(wait_for_steps(run, "run", 7)) << run.log();
  limit_files(run, 2, 10'000);
  ASSERT_EQ(codes_of(4, 23), run.wait_codes()) << run.log();
  expect_told_once(run, "run", 23, 0, {"rank 2: ", "rank00002.h5"});
  const std::string last = exit_reason("run").at("last_checkpoint");
  EXPECT_EQ("", verify_checkpoint(last, Verify::kFull));
  for (const std::string& name : names_in(dir("run") + "/checkpoints")) {
    EXPECT_EQ(std::string::npos, name.find('.')) << name;
  }
  EXPECT_TRUE(run.left_nothing());
}

// ---- runs that all ranks refuse ---------------------------------------------------------------

class Refusals : public RanksTest {
 protected:
  // All ranks end with `code`, and one of them says why.
  void expect_refused(MpiRun& run, int code, const Words& says) const {
    ASSERT_EQ(codes_of(run.size(), code), run.wait_codes()) << run.log();
    const std::vector<std::string> lines = run.error_lines();
    ASSERT_EQ(1u, lines.size()) << run.log();
    for (const std::string& text : says) {
      EXPECT_NE(std::string::npos, run.log().find(text)) << run.log();
    }
    for (int rank = 1; rank < run.size(); ++rank) EXPECT_EQ("", run.out(rank) + run.err(rank));
    EXPECT_TRUE(run.left_nothing());
  }
  void expect_refused(int n_ranks, const Words& words, int code, const Words& says) const {
    MpiRun run(notes(), n_ranks, words);
    expect_refused(run, code, says);
  }
};

TEST_F(Refusals, OfACommandLine) {
  expect_refused(4, {"trian", "run.toml"}, 20, {"\"qstep trian\"", "\"qstep train\""});
  expect_refused(3, {"train"}, 20, {"config is required"});
}

TEST_F(Refusals, OfAConfiguration) {
  expect_refused(2, train("run", {"train.sed=1", "train.steps=many"}), 20,
                 {"train.sed", "train.steps"});
  expect_refused(3, train("run"), 20, {"3 ranks cannot share", "2 or 4 ranks"});
  EXPECT_EQ(20, exit_reason("run").at("code"));
}

TEST_F(Refusals, OfACorpusThatIsNotThere) {
  expect_refused(2, train("run", {"data.train=missing.h5"}), 21, {"missing.h5"});
  EXPECT_EQ(21, exit_reason("run").at("code"));
}

TEST_F(Refusals, OfAFolderInUse) {
  MpiRun first(dir("first"), 2, train("run", {"train.steps=1000000", "train.eval_every=0"}));
  ASSERT_TRUE(wait_for_steps(first, "run", 1)) << first.log();
  expect_refused(2, train("run"), 20, {dir("run"), fmt::format("pid {}", first.pid(0))});
  EXPECT_FALSE(fs::exists(dir("run") + "/exit_reason.json"));  // of the run that goes on
  first.signal(1, SIGTERM);
  EXPECT_EQ(codes_of(2, 10), first.wait_codes()) << first.log();

  expect_refused(2, train("run", {"run.resume=never"}), 20, {"run.resume=never"});
}

TEST_F(Refusals, OfAnotherCommandLineOnOneRank) {
  const RankStart usual{train("run"), ""}, other{train("run", {"train.seed=2"}), ""};
  MpiRun run(notes(), {usual, other, usual, usual});
  expect_refused(run, 20, {"rank 1: ", "same command"});
}

}  // namespace
}  // namespace qstep::trainer::testing
