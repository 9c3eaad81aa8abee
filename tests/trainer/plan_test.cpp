// What qstep plan --gpu says, as JSON, and its sweep over meshes.
#include <gtest/gtest.h>

#include <set>

#include "trainer/plan_prediction.h"
#include "trainer/tensor_check.h"
#include "trainer/trainer.h"

namespace qstep::trainer {
namespace {

Config config_of(const std::vector<std::string>& words) { return load_model_words(words).config; }

Config small() {
  return config_of({"llama-1b", "model.vocab_size=32000", "train.seq_len=2048",
                    "train.micro_batch=2", "train.global_batch=64", "precision.recipe=mxfp8"});
}

TEST(Plan, PhasesAddUpToTheStep) {
  const MachineModel& machine = machine_model("b200");
  const auto json = to_json(predict(small(), machine, 8, false), machine);
  double sum = 0;
  for (const auto& [phase, ms] : json["breakdown_ms"].items()) sum += ms.get<double>();
  EXPECT_NEAR(sum, json["step_ms"].get<double>(), 1e-9 * sum);
  EXPECT_NEAR(json["tokens_per_s"].get<double>(), 64 * 2048 / (1e-3 * sum), 1);
  EXPECT_EQ(json["machine"]["name"], "b200");
  EXPECT_FALSE(json["emulated"].get<bool>());
  EXPECT_FALSE(json.contains("sweep"));
  EXPECT_GT(json["gain_over_bf16"], 1);
  EXPECT_GT(json["largest_gain_over_bf16"], json["gain_over_bf16"]);
  EXPECT_LT(json["sol"], 1);
  for (const auto& product : json["products"]) {
    EXPECT_EQ(product["runs_as"], product["op"] == "head" ? "bf16" : "mxfp8");
  }
}

TEST(Plan, Bf16GainsNothingOverItself) {
  Config config = small();
  set_recipe(config, "bf16");
  const Prediction prediction = predict(config, machine_model("h100"), 8, false);
  EXPECT_EQ(prediction.gain(), 1);
  EXPECT_EQ(prediction.step.least.largest_gain(), 1);
}

TEST(Plan, MemoryIsThatOfTheTable) {
  const Config config = small();
  int64_t bytes = 0;
  for (const MemoryRow& row : training_memory(config, 8, 0)) bytes += row.bytes;
  EXPECT_EQ(predict(config, machine_model("h100"), 8, false).memory_bytes, bytes);
}

TEST(Plan, TheSweepHasEveryMeshThatComesOutEvenTheBestFirst) {
  const Config config = small();
  MachineModel machine = machine_model("h100");
  machine.memory_bytes = 40'000'000'000;
  const std::vector<SweepRow> rows = sweep_meshes(config, machine, 8);
  std::set<std::pair<int64_t, int64_t>> meshes;
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(meshes.insert({rows[i].tensor, rows[i].micro_batch}).second);
    EXPECT_EQ(rows[i].tensor * rows[i].data, 8);
    EXPECT_EQ(rows[i].fits, rows[i].memory_bytes <= machine.memory_bytes);
    if (i == 0) continue;
    EXPECT_GE(rows[i - 1].fits, rows[i].fits);
    if (rows[i - 1].fits == rows[i].fits) {
      EXPECT_LE(rows[i - 1].time.seconds(), rows[i].time.seconds());
    }
  }
  // 64 sequences over D groups in micro-batches of 1, 2, ... 64 / D.
  size_t expected = 0;
  for (const int64_t tensor : possible_tensors(config)) {
    if (tensor > 8) continue;
    for (int64_t micro = 1; micro <= 64 * tensor / 8; micro *= 2) ++expected;
  }
  EXPECT_EQ(rows.size(), expected);
  EXPECT_TRUE(rows.front().fits);
  EXPECT_FALSE(rows.back().fits);
}

TEST(Plan, TheSweepKeepsSharedLayersWithinTheLink) {
  MachineModel machine = machine_model("h100");
  machine.gpus_per_link = 2;
  for (const SweepRow& row : sweep_meshes(small(), machine, 8)) EXPECT_LE(row.tensor, 2);
}

}  // namespace
}  // namespace qstep::trainer
