// Logs of other trainers, in lines made up after the formats that their sources print.
#include "trainer/report/peer_log.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ops/error.h"
#include "tests/data/test_files.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_json.h"
#include "trainer/report/report_markdown.h"

namespace qstep::trainer::report::testing {
namespace {

class PeerLogFile : public ::testing::Test {
 protected:
  report::Run read(const std::string& text) const {
    data::write_file(folder_ / "theirs.log", text);
    return read_peer_log(folder_ / "theirs.log");
  }
  data::TempDir folder_;
};

TEST_F(PeerLogFile, Megatron) {
  const report::Run run = read(
      "building GPT model ...\n"
      " [2026-11-01 10:00:00.123456] iteration       10/    1000 | consumed samples:          640 "
      "| "
      "elapsed time per iteration (ms): 1250.5 | throughput per GPU (TFLOP/s/GPU): 412.3 | "
      "learning rate: 1.500000E-04 | global batch size:    64 | lm loss: 9.876543E+00 | loss "
      "scale: "
      "1.0 | grad norm: 2.345 | number of skipped iterations:   0 | number of nan iterations:   0 "
      "|\n"
      "(min, max) time across ranks (ms):\n"
      "    forward-backward ..............: (1101.10, 1120.20)\n"
      " [2026-11-01 10:00:13.123456] iteration       20/    1000 | consumed samples:         1280 "
      "| "
      "elapsed time per iteration (ms): 1240.0 | learning rate: 3.0E-04 | lm loss: 8.5E+00 |\n");
  ASSERT_EQ(2u, run.steps.size());
  EXPECT_EQ("Megatron-LM", run.peer->tool);
  EXPECT_EQ(10, run.steps[0].step);
  EXPECT_EQ(1250.5, run.steps[0].step_ms);
  EXPECT_EQ(9.876543, run.steps[0].loss);
  EXPECT_EQ(1.5e-4, run.steps[0].lr);
  EXPECT_EQ(2.345, run.steps[0].grad_norm);
  EXPECT_EQ(412.3e12, run.steps[0].model_flops_per_s_per_device);
  EXPECT_EQ(20, run.steps[1].step);
  EXPECT_TRUE(std::isnan(run.steps[1].grad_norm));
}

TEST_F(PeerLogFile, TorchtitanInColour) {
  const report::Run run = read(
      "[titan] 2026-11-01 10:00:00,000 - root - INFO - \x1b[31mstep:  1  \x1b[32mloss:  8.1234  "
      "\x1b[38;2;180;60;0mgrad_norm:  1.5000  \x1b[38;2;54;234;195mmemory:  1.98GiB(2.06%)  "
      "\x1b[34mtps: 12,345  \x1b[36mtflops: 120.50  \x1b[35mmfu: 12.18%\x1b[39m\n"
      "step: 10  loss:  nan  grad_norm:  0.9  memory: 2GiB(2%)  tps: 13,000  tflops: 130  mfu: "
      "N/A\n");
  ASSERT_EQ(2u, run.steps.size());
  EXPECT_EQ("torchtitan", run.peer->tool);
  EXPECT_EQ(1, run.steps[0].step);
  EXPECT_EQ(8.1234, run.steps[0].loss);
  EXPECT_EQ(12345, run.steps[0].tokens_per_s_per_device);
  EXPECT_EQ(120.5e12, run.steps[0].model_flops_per_s_per_device);
  EXPECT_TRUE(std::isnan(run.steps[0].step_ms));
  EXPECT_TRUE(std::isnan(run.steps[1].loss));
}

TEST_F(PeerLogFile, MaxText) {
  const report::Run run = read(
      "completed step: 7, seconds: 2.500, TFLOP/s/device: 301.25, Tokens/s/device: 6553.600, "
      "total_weights: 65536, loss: 6.125, lm_loss: 6.000, perplexity: 403.4\n");
  ASSERT_EQ(1u, run.steps.size());
  EXPECT_EQ("MaxText", run.peer->tool);
  EXPECT_EQ(7, run.steps[0].step);
  EXPECT_EQ(2500, run.steps[0].step_ms);
  EXPECT_EQ(6.125, run.steps[0].loss);
  EXPECT_EQ(6553.6, run.steps[0].tokens_per_s_per_device);
}

TEST_F(PeerLogFile, Llmc) {
  const report::Run run = read(
      "| max_sequence_length T | 1024 |\n"
      "step    3/18865 | loss 10.987654 (+nanz)| norm 15.4321 (+nanz)| lr 2.57e-06 | 371.25 ms | "
      "52.4% bf16 MFU | 1412345 tok/s\n"
      "val loss 10.95\n"
      "step    4/18865 | loss 10.5 (-1.20z)| norm 12 (+0.3z)| lr 3.43e-06 | 370.5 ms | 52.5% bf16 "
      "MFU | 1415000 tok/s\n");
  ASSERT_EQ(2u, run.steps.size());
  EXPECT_EQ("llm.c", run.peer->tool);
  EXPECT_EQ(3, run.steps[0].step);
  EXPECT_EQ(10.987654, run.steps[0].loss);
  EXPECT_EQ(15.4321, run.steps[0].grad_norm);
  EXPECT_EQ(2.57e-6, run.steps[0].lr);
  EXPECT_EQ(371.25, run.steps[0].step_ms);
  EXPECT_EQ(1412345, run.steps[0].tokens_per_s);
}

TEST_F(PeerLogFile, Llmq) {
  const report::Run run = read(
      "[T] step     5 [ 0.1%] | time:  812.5 ms | norm   1.75 | loss   9.25 | tps   80000 | sol "
      "45.1%\n"
      "[V] step     5 | loss 9.5\n");
  ASSERT_EQ(1u, run.steps.size());
  EXPECT_EQ("llmq", run.peer->tool);
  EXPECT_EQ(5, run.steps[0].step);
  EXPECT_EQ(812.5, run.steps[0].step_ms);
  EXPECT_EQ(9.25, run.steps[0].loss);
  EXPECT_EQ(1.75, run.steps[0].grad_norm);
  EXPECT_EQ(80000, run.steps[0].tokens_per_s);
}

TEST_F(PeerLogFile, AnythingElseIsRefusedWithTheKnownOnes) {
  try {
    read("epoch 1: accuracy 99 %\n");
    FAIL() << "accepted";
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kConfig, error.code());
    EXPECT_NE(std::string::npos, std::string(error.what()).find("Megatron-LM, MaxText, torchtitan"))
        << error.what();
  }
  EXPECT_THROW(read_peer_log(folder_ / "nowhere.log"), ops::Error);
}

// A line cut short, as by a kill, has no step or fewer values; it never ends the reading.
TEST_F(PeerLogFile, CutLinesGiveWhatTheyHave) {
  const std::string line =
      "step    3/18865 | loss 10.987654 (+nanz)| norm 15.4321 (+nanz)| lr 2.57e-06 | 371.25 ms | "
      "52.4% bf16 MFU | 1412345 tok/s\n";
  for (size_t cut = 0; cut < line.size(); ++cut) {
    EXPECT_EQ(1u, read(line + line.substr(0, cut)).steps.size()) << cut;
  }
}

TEST_F(PeerLogFile, AReportSaysWhatTheLogDoesNot) {
  std::string text;
  for (int step = 1; step <= 40; ++step) {
    text += fmt::format(
        "completed step: {}, seconds: {}, TFLOP/s/device: 300, Tokens/s/device: 6000, "
        "total_weights: 65536, loss: {}\n",
        step, 2 + 0.001 * (step % 5), 9 - 0.01 * step);
  }
  const report::Run run = read(text);
  const Json report = report_json({&run, 1});
  const Json& json = report.at("runs")[0];
  EXPECT_EQ(32, json.at("step_time").at("n"));
  EXPECT_NEAR(2002, json.at("step_time").at("p50_ms").get<double>(), 1);
  EXPECT_EQ(6000, json.at("throughput").at("tokens_per_s_per_rank"));
  EXPECT_NEAR(8.6, json.at("loss").at("last").get<double>(), 1e-12);
  for (const char* key : {"breakdown", "comm", "precision", "ranks", "memory", "goodput"}) {
    EXPECT_EQ("not in this log", json.at(key).at("reason")) << key;
  }
  EXPECT_NE(std::string::npos, report_markdown(report).find("not in this log"));
  EXPECT_GT(report_html(report).size(), 1000u);

  // Without times: throughput and loss are left.
  const report::Run titan =
      read("step: 1  loss: 8.5  grad_norm: 1  memory: 1GiB(1%)  tps: 12,000\n");
  const Json without = report_json({&titan, 1}).at("runs")[0];
  EXPECT_FALSE(without.at("step_time").at("available"));
  EXPECT_EQ(12000, without.at("throughput").at("tokens_per_s_per_rank"));
}

}  // namespace
}  // namespace qstep::trainer::report::testing
