#include "trainer/run/run_dir.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/trainer/checkpoint_testing.h"
#include "trainer/base/durable_files.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using testing::code_of;
using testing::TemporaryFolder;

TEST(RunDir, MakesTheFolderAndNamesItsFiles) {
  const TemporaryFolder parent;
  const RunDir run(parent / "a/b");
  EXPECT_TRUE(fs::is_directory(parent / "a/b"));
  EXPECT_EQ(run.config_toml(), parent / "a/b/config.toml");
  EXPECT_EQ(run.metrics_jsonl(), parent / "a/b/metrics.jsonl");
  EXPECT_EQ(run.checkpoints(), parent / "a/b/checkpoints");
  EXPECT_EQ(run.exit_reason(), parent / "a/b/exit_reason.json");
  run.write_config("[run]\n");
  run.write_config("[train]\n");
  EXPECT_EQ(read_file(run.config_toml()), "[train]\n");
  EXPECT_EQ(testing::names_in(run.path()), (std::vector<std::string>{".lock", "config.toml"}));
}

TEST(RunDir, SecondOwnerIsRefusedAndToldWhoHasIt) {
  const TemporaryFolder folder;
  const RunDir run(folder.path());
  std::string text;
  EXPECT_EQ(code_of([&] { const RunDir second(folder.path()); }, &text), ops::ExitCode::kConfig);
  EXPECT_NE(text.find(fmt::format("in use by pid {} on host {}", ::getpid(), host_name())),
            std::string::npos)
      << text;
}

TEST(RunDir, IsFreeAgainWhenItsOwnerIsKilled) {
  const TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunDir run(folder.path());
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  std::string text;
  EXPECT_EQ(code_of([&] { const RunDir second(folder.path()); }, &text), ops::ExitCode::kConfig);
  EXPECT_NE(text.find(fmt::format("pid {}", child)), std::string::npos) << text;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const RunDir run(folder.path());
  EXPECT_EQ(run.restart_count(), 1);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(RunDir, CountsStartsAndSurvivesADamagedLockFile) {
  const TemporaryFolder folder;
  for (int64_t start = 0; start < 3; ++start)
    EXPECT_EQ(RunDir(folder.path()).restart_count(), start);
  for (const char* text : {"", "no json", "{\"pid\": \"x\", \"starts\": -4}", "[1]"}) {
    std::ofstream(folder / ".lock") << text;
    EXPECT_EQ(RunDir(folder.path()).restart_count(), 0) << text;
  }
}

TEST(RunDir, FreshRunNeedsAFolderWithoutAnotherRun) {
  const TemporaryFolder folder;
  const RunDir run(folder.path());
  run.require_fresh();
  fs::create_directories(run.checkpoints());
  run.write_config("");
  run.require_fresh();  // an empty folder holds nothing that could be lost
  std::string text;
  std::ofstream(run.metrics_jsonl()) << "{}\n";
  EXPECT_EQ(code_of([&] { run.require_fresh(); }, &text), ops::ExitCode::kConfig);
  EXPECT_NE(text.find("run.resume=auto"), std::string::npos) << text;
  fs::remove(run.metrics_jsonl());
  fs::create_directories(run.checkpoints() + "/step-00000001");
  EXPECT_EQ(code_of([&] { run.require_fresh(); }), ops::ExitCode::kConfig);
}

TEST(RunDir, PlaceThatCannotBeAFolderIsADiskError) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  std::string text;
  EXPECT_EQ(code_of([&] { const RunDir run(folder / "file"); }, &text), ops::ExitCode::kDisk);
  EXPECT_NE(text.find(folder / "file"), std::string::npos) << text;
}

TEST(ExitReason, HasEveryFieldOfTheDocument) {
  const TemporaryFolder folder;
  const RunDir run(folder.path());
  run.write_exit_reason({.code = ops::ExitCode::kPreempted,
                         .step = 12,
                         .rank = 0,
                         .what = "signal \"15\" \xff",
                         .last_checkpoint = "checkpoints/step-00000012",
                         .restart_count = 3,
                         .config_hash = "abc"});
  const auto json = nlohmann::ordered_json::parse(read_file(run.exit_reason()));
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys,
            (std::vector<std::string>{"code", "name", "requeue", "step", "time", "rank", "host",
                                      "what", "last_checkpoint", "restart_count", "config_hash"}));
  EXPECT_EQ(json["code"], 10);
  EXPECT_EQ(json["name"], "preempted");
  EXPECT_EQ(json["requeue"], true);
  EXPECT_EQ(json["step"], 12);
  EXPECT_EQ(json["host"], host_name());
  EXPECT_EQ(json["last_checkpoint"], "checkpoints/step-00000012");
  EXPECT_EQ(json["restart_count"], 3);
}

TEST(ExitReason, EveryCodeHasItsOwnName) {
  std::set<int> codes;
  std::set<std::string_view> names;
  for (const ExitKind& kind : exit_kinds()) {
    codes.insert(static_cast<int>(kind.code));
    names.insert(kind.name);
    EXPECT_EQ(exit_kind(kind.code).name, kind.name);
  }
  EXPECT_EQ(codes, (std::set<int>{0, 1, 10, 11, 12, 20, 21, 22, 23, 30, 31, 32, 40, 41, 50, 51}));
  EXPECT_EQ(names.size(), codes.size());
}

}  // namespace
}  // namespace qstep::trainer
