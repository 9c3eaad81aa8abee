// BF16's loss curve beside FP32's, in whole runs.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tests/trainer/run_fixture.h"

namespace qstep::trainer::testing {
namespace {

// How far BF16's loss curve runs from FP32's. BF16 rounds weights and activations to 2^-8 relative.
struct LossGap {
  double worst = 0;                      // nats, any step
  double end = 0;                        // nats, mean over the last ten steps
  double first_loss = 0, last_loss = 0;  // of FP32
};

class Bf16 : public Run {
 protected:
  LossGap gap_to_fp32(const Words& words) const {
    std::map<std::string, std::vector<double>> losses;
    for (const std::string recipe : {"fp32", "bf16"}) {
      Words all = words;
      all.insert(all.end(), {"precision.recipe=" + recipe, "run.dir=" + dir(recipe)});
      EXPECT_EQ(0, run(all)) << text_of(log());
      for (const Json& row : rows_of(metrics(recipe), "step")) {
        losses[recipe].push_back(row.at("loss"));
      }
    }
    const std::vector<double>&exact = losses["fp32"], &found = losses["bf16"];
    EXPECT_EQ(60u, exact.size());
    EXPECT_EQ(60u, found.size());
    if (exact.size() != 60 || found.size() != 60) return {};
    LossGap gap{.first_loss = exact.front(), .last_loss = exact.back()};
    for (size_t i = 0; i < 60; ++i) {
      gap.worst = std::max(gap.worst, std::fabs(found[i] - exact[i]));
      if (i >= 50) gap.end += (found[i] - exact[i]) / 10;
    }
    RecordProperty("worst_gap", fmt::format("{:.5f}", gap.worst));
    RecordProperty("end_gap", fmt::format("{:.5f}", gap.end));
    RecordProperty("losses", fmt::format("{:.3f} {:.3f}", gap.first_loss, gap.last_loss));
    EXPECT_LT(gap.last_loss, gap.first_loss - 1.0) << "the model learned nothing";
    return gap;
  }
};

TEST_F(Bf16, LossStaysNearFp32) {
  const LossGap gap = gap_to_fp32(train(
      "", {"train.steps=60", "train.eval_every=0", "train.seq_len=64", "model.width=64",
           "model.n_heads=2", "optimizer.lr=3e-3", "train.global_batch=8", "train.micro_batch=8"}));
  EXPECT_LT(gap.worst, 0.02);
  EXPECT_LT(std::fabs(gap.end), 0.005);
}

// The quickstart's kind of text: the headers of this machine's C++ library.
TEST_F(Bf16, LossStaysNearFp32OnTheQuickstartCorpus) {
  const std::string corpus = folder_ / "headers.h5";
  ASSERT_EQ(0, run({"data", "prepare", "/usr/include/c++", "--glob", "*", "--vocab-size", "1024",
                    "-o", corpus}))
      << text_of(log());
  const LossGap gap =
      gap_to_fp32({"train", "model.preset=llama-1m", "data.train=" + corpus, "train.steps=60",
                   "train.eval_every=0", "train.seq_len=128", "train.global_batch=8",
                   "train.micro_batch=8", "optimizer.lr=3e-3", "optimizer.warmup_steps=10"});
  EXPECT_LT(gap.worst, 0.05);
  EXPECT_LT(std::fabs(gap.end), 0.02);
}

}  // namespace
}  // namespace qstep::trainer::testing
