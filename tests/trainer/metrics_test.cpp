#include "trainer/run/metrics.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/support/compare.h"
#include "tests/trainer/checkpoint_testing.h"

namespace qstep::trainer::testing {
namespace {

using Json = nlohmann::json;

class Metrics : public ::testing::Test {
 protected:
  std::vector<Json> rows() const {
    std::vector<Json> all;
    std::ifstream in(path_);
    for (std::string line; std::getline(in, line);) all.push_back(Json::parse(line));
    return all;
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> all;
    for (const Json& row : rows()) all.push_back(row.at("step"));
    return all;
  }
  void write(MetricsFile& file, int64_t first, int64_t last) const {
    for (int64_t step = first; step <= last; ++step) {
      StepRow row;
      row.step = step;
      file.step(row);
    }
  }
  TemporaryFolder folder_;
  std::string path_ = folder_ / "metrics.jsonl";
};

TEST_F(Metrics, FloatsReadBackToTheSameBits) {
  test::Random random(90);
  std::vector<StepRow> written;
  {
    MetricsFile file(path_, 0);
    for (int64_t step = 1; step <= 500; ++step) {
      StepRow row;
      row.step = step;
      do {
        row.loss = std::bit_cast<float>(random.bits());
        row.grad_norm = std::bit_cast<float>(random.bits());
        row.lr = std::bit_cast<double>(uint64_t{random.bits()} << 32 | random.bits());
      } while (!std::isfinite(row.loss) || !std::isfinite(row.grad_norm) || !std::isfinite(row.lr));
      row.phases_ms[0] = random.uniform(0, 1000);
      row.tokens = random.integer(0, int64_t{1} << 40);
      row.skipped = step % 3 == 0;
      file.step(row);
      written.push_back(row);
    }
  }
  const std::vector<Json> read = rows();
  ASSERT_EQ(written.size(), read.size());
  for (size_t i = 0; i < read.size(); ++i) {
    const StepRow& row = written[i];
    EXPECT_EQ("step", read[i].at("type"));
    EXPECT_EQ(row.step, read[i].at("step"));
    EXPECT_EQ(std::bit_cast<uint32_t>(row.loss),
              std::bit_cast<uint32_t>(read[i].at("loss").get<float>()));
    EXPECT_EQ(std::bit_cast<uint32_t>(row.grad_norm),
              std::bit_cast<uint32_t>(read[i].at("grad_norm").get<float>()));
    EXPECT_EQ(std::bit_cast<uint64_t>(row.lr),
              std::bit_cast<uint64_t>(read[i].at("lr").get<double>()));
    EXPECT_EQ(row.phases_ms[0], read[i].at("phases_ms").at("data").get<double>());
    EXPECT_EQ(row.tokens, read[i].at("tokens"));
    EXPECT_EQ(row.skipped, read[i].at("skipped"));
  }
}

TEST_F(Metrics, HasARowOfEveryKind) {
  {
    MetricsFile file(path_, 0);
    file.run({.first_step = 1,
              .config_hash = "hash",
              .recipe = "nvfp4",
              .emulated = true,
              .n_parameters = 12345,
              .flops_per_token = 6.5,
              .machine = machine_model("h200")});
    StepRow step;
    step.step = 1;
    step.loss = std::numeric_limits<float>::quiet_NaN();
    step.grad_norm = std::numeric_limits<float>::infinity();
    step.non_finite_input = "blocks.1.down dy";
    file.step(step);
    file.eval({.step = 1,
               .loss = 2.5,
               .bits_per_byte = 1.25,
               .tokens = 64,
               .eval_ms = 3,
               .precision = "nvfp4 emulated"});
    file.checkpoint({.step = 1, .save_ms = 4, .path = "a \"quoted\"\\path"});
  }
  const std::vector<Json> all = rows();
  ASSERT_EQ(4u, all.size());
  EXPECT_EQ("run", all[0].at("type"));
  EXPECT_EQ(kMetricsSchema, all[0].at("schema"));
  EXPECT_EQ("hash", all[0].at("config_hash"));
  EXPECT_EQ("nvfp4", all[0].at("recipe"));
  EXPECT_EQ(true, all[0].at("emulated"));
  EXPECT_EQ("h200", all[0].at("peak_machine"));
  EXPECT_EQ((Json{{"bf16", 989e12}, {"fp8", 1979e12}, {"fp8_tiles", 1979e12}}),
            all[0].at("peak_flops_per_s"));
  EXPECT_EQ(4.8e12, all[0].at("peak_memory_bytes_per_s"));
  for (const char* key : {"loss", "lr", "grad_norm", "step_ms", "tokens", "tokens_total",
                          "tokens_per_s", "model_flops_per_s", "tflops_causal", "mfu_bf16", "sol",
                          "peak_rss_bytes", "skipped", "non_finite_input", "phases_ms"}) {
    EXPECT_TRUE(all[1].contains(key)) << key;
  }
  EXPECT_TRUE(all[1].at("loss").is_null());  // JSON has no NaN
  EXPECT_TRUE(all[1].at("grad_norm").is_null());
  EXPECT_EQ(kPhaseNames.size(), all[1].at("phases_ms").size());
  EXPECT_EQ("blocks.1.down dy", all[1].at("non_finite_input"));
  EXPECT_EQ(1.25, all[2].at("bits_per_byte"));
  EXPECT_EQ("nvfp4 emulated", all[2].at("precision"));
  EXPECT_EQ("a \"quoted\"\\path", all[3].at("path"));
}

TEST_F(Metrics, ResumeDropsATornLineAndLaterSteps) {
  {
    MetricsFile file(path_, 0);
    write(file, 1, 6);
  }
  std::ofstream(path_, std::ios::app) << R"({"type":"step","step":7,"lo)";
  {
    MetricsFile file(path_, 4);
    write(file, 5, 5);
  }
  EXPECT_EQ((std::vector<int64_t>{1, 2, 3, 4, 5}), steps());
}

// A row torn by a kill is the last line of the file, even where its step would have been kept.
TEST_F(Metrics, ResumeDropsATornLineOfAKeptStep) {
  {
    MetricsFile file(path_, 0);
    write(file, 1, 2);
  }
  std::ofstream(path_, std::ios::app) << R"({"type":"step","step":3,"loss":1.)";
  {
    MetricsFile file(path_, 3);
    write(file, 4, 4);
  }
  EXPECT_EQ((std::vector<int64_t>{1, 2, 4}), steps());
}

TEST_F(Metrics, AFreshRunBeginsAnew) {
  {
    MetricsFile file(path_, 0);
    write(file, 1, 3);
  }
  {
    MetricsFile file(path_, 0);
    write(file, 1, 1);
  }
  EXPECT_EQ((std::vector<int64_t>{1}), steps());
}

}  // namespace
}  // namespace qstep::trainer::testing
