// How a run ends: signals, steps that are not finite, a corpus that is damaged.
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/run_fixture.h"

namespace qstep::trainer::testing {
namespace {

TEST_F(Run, StopsOnASignalAndGoesOnWithTheSameBits) {
  const Words length{"train.steps=400",
                     "train.eval_every=1"};  // a signal may cut off an evaluation
  ASSERT_EQ(0, run(train("whole", length))) << text_of(log());
  size_t rows = 5;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) {
    Process process(train("part", length), log());
    wait_for_rows(process, "part", rows);
    process.signal(number);
    ASSERT_EQ(10, process.wait()) << text_of(log());
    const Json reason = exit_reason("part");
    EXPECT_EQ(10, reason.at("code"));
    EXPECT_EQ(true, reason.at("requeue"));
    const int64_t step = reason.at("step");
    EXPECT_EQ(checkpoint("part", step), reason.at("last_checkpoint"));
    EXPECT_EQ(static_cast<size_t>(step), rows_of(metrics("part"), "step").size());
    rows = static_cast<size_t>(step) + 5;
  }
  ASSERT_EQ(0, run(train("part", length))) << text_of(log());
  EXPECT_EQ(0, exit_reason("part").at("code"));
  expect_same_run("whole", "part", 400);
}

// The step is made so long that the second signal arrives while the first waits for its end.
TEST_F(Run, SecondSignalEndsAtOnce) {
  Process process(
      train("run", {"train.steps=100000", "train.global_batch=200000", "train.micro_batch=1"}),
      log());
  process.wait_for([&] { return !text_of(dir("run") + "/config.toml").empty(); });
  process.signal(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // two signals, not one pending twice
  process.signal(SIGINT);
  EXPECT_EQ(12, process.wait()) << text_of(log());
}

// A rate that throws the weights to infinity: one update, then nothing but bad steps.
TEST_F(Run, EndsWhenStepsStayNonFinite) {
  ASSERT_EQ(30, run(train("run", {"optimizer.lr=1e38", "optimizer.warmup_steps=0",
                                  "optimizer.schedule=constant", "train.max_bad_steps=3"})))
      << text_of(log());
  const Json reason = exit_reason("run");
  EXPECT_EQ(30, reason.at("code"));
  EXPECT_EQ(false, reason.at("requeue"));
  const std::vector<Json> rows = rows_of(metrics("run"), "step");
  const int64_t steps = reason.at("step");
  ASSERT_EQ(static_cast<size_t>(steps), rows.size());
  int64_t skipped = 0;
  for (const Json& row : rows) skipped += row.at("skipped") ? 1 : 0;
  for (size_t i = rows.size() - 3; i < rows.size(); ++i) EXPECT_EQ(true, rows[i].at("skipped"));
  const CheckpointReader saved(checkpoint("run", steps));
  EXPECT_EQ(skipped, saved.state().skipped_steps);
  EXPECT_EQ(steps - skipped, saved.state().updates);
  EXPECT_EQ(3, saved.state().bad_steps_in_a_row);
}

// A store of three chunks, the short last one damaged: a batch that reads it ends the run, and what
// was learned before is saved.
TEST_F(Run, SavesWhatWasLearnedBeforeADamagedBatch) {
  const std::string path = folder_ / "damaged.h5";
  {
    data::TokenStoreWriter writer(path, {.tokenizer = "bytes",
                                         .model = "",
                                         .vocab_size = 257,
                                         .eos_id = 256,
                                         .source = "made by a test"});
    std::vector<uint32_t> ids(2 * data::kChunkTokens, 'a');
    ids.insert(ids.end(), 2000, 'z');  // only these lie in the last chunk
    writer.append(data::Part::kTrain, ids, ids.size());
    writer.end_document(data::Part::kTrain);
    writer.finish();
  }
  std::string bytes = text_of(path);
  const size_t run_of_z = bytes.find(std::string("z\0z\0z\0z\0z\0z\0z\0z\0", 16));
  ASSERT_NE(std::string::npos, run_of_z);
  bytes[run_of_z] ^= 1;
  std::ofstream(path, std::ios::binary) << bytes;

  EXPECT_EQ(21, run(train("run", {"data.train=" + path, "train.steps=1000", "train.eval_every=0"})))
      << text_of(log());
  const int64_t step = exit_reason("run").at("step");
  EXPECT_EQ(21, exit_reason("run").at("code"));
  ASSERT_GT(step, 0) << "another seed: the first batch met the damage";
  EXPECT_EQ(static_cast<size_t>(step), rows_of(metrics("run"), "step").size());
  EXPECT_EQ(checkpoint("run", step), exit_reason("run").at("last_checkpoint"));
  EXPECT_EQ(step, CheckpointReader(checkpoint("run", step)).state().step);
}

}  // namespace
}  // namespace qstep::trainer::testing
