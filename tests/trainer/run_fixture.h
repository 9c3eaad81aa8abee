// A run of the qstep executable on a small corpus, in a folder of its own.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/compare.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/process.h"
#include "tests/trainer/run_records.h"
#include "tests/trainer/small_store.h"

namespace qstep::trainer::testing {

using Json = nlohmann::json;

class Run : public ::testing::Test {
 protected:
  Run() { write_small_store(folder_ / "corpus.h5", 70); }

  std::string dir(const std::string& name) const { return folder_ / name; }

  // Small enough that a step takes about a millisecond.
  Words train(const std::string& name, const Words& more = {}) const {
    Words words{"train",
                "model.n_layers=2",
                "model.width=24",
                "model.n_heads=3",
                "model.n_kv_heads=1",
                "model.qk_norm=true",
                "data.train=" + (folder_ / "corpus.h5"),
                "train.steps=12",
                "train.global_batch=6",
                "train.micro_batch=2",
                "train.seq_len=16",
                "train.eval_every=4",
                "train.eval_batches=2",
                "optimizer.warmup_steps=3",
                "run.keep_last=20",
                "run.threads=1",
                "run.dir=" + dir(name)};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  int run(const Words& words) const { return Process(words, log()).wait(); }
  std::string log() const { return folder_ / "log.txt"; }
  Json exit_reason(const std::string& name) const {
    return Json::parse(text_of(dir(name) + "/exit_reason.json"));
  }
  std::string metrics(const std::string& name) const { return dir(name) + "/metrics.jsonl"; }
  std::string checkpoint(const std::string& name, int64_t step) const {
    return dir(name) + fmt::format("/checkpoints/step-{:08}", step);
  }

  void expect_same_run(const std::string& a, const std::string& b, int64_t step) const {
    EXPECT_EQ(exact_part(rows_of(metrics(a), "step")), exact_part(rows_of(metrics(b), "step")));
    EXPECT_EQ(exact_part(rows_of(metrics(a), "eval")), exact_part(rows_of(metrics(b), "eval")));
    const CheckpointReader x(checkpoint(a, step)), y(checkpoint(b, step));
    EXPECT_EQ(x.state().tokens, y.state().tokens);
    EXPECT_EQ(x.state().updates, y.state().updates);
    EXPECT_EQ(x.names(), y.names());
    // The manifest has the shape and the checksum of every tensor.
    const Json m = Json::parse(text_of(checkpoint(a, step) + "/manifest.json"));
    const Json n = Json::parse(text_of(checkpoint(b, step) + "/manifest.json"));
    ASSERT_FALSE(m.at("tensors").empty());
    EXPECT_EQ(m.at("tensors"), n.at("tensors"));
  }

  void wait_for_rows(Process& process, const std::string& name, size_t rows) const {
    process.wait_for([&] { return rows_of(metrics(name), "step").size() >= rows; });
  }

  TemporaryFolder folder_;
};

}  // namespace qstep::trainer::testing
