// A small corpus and a model that trains on it in milliseconds, for whole runs on several ranks.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/mpi_run.h"
#include "tests/trainer/run_records.h"
#include "tests/trainer/small_store.h"

namespace qstep::trainer::testing {

class RanksTest : public ::testing::Test {
 protected:
  using Json = nlohmann::json;

  RanksTest() { write_small_store(corpus(), 70); }

  std::string corpus() const { return folder_ / "corpus.h5"; }
  std::string dir(const std::string& name) const { return folder_ / name; }

  // Eight micro-batches of 32 tokens, and blocks as large as every recipe's.
  Words train(const std::string& name, const Words& more = {}) const {
    Words words{"train",
                "model.n_layers=2",
                "model.width=128",
                "model.n_heads=2",
                "data.train=" + corpus(),
                "train.steps=6",
                "train.global_batch=8",
                "train.micro_batch=1",
                "train.seq_len=32",
                "train.eval_every=3",
                "train.eval_batches=3",
                "optimizer.warmup_steps=2",
                "run.keep_last=20",
                "run.threads=1",
                "run.dir=" + dir(name)};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  // Where the notes on the processes of a run are.
  std::string notes() const { return folder_ / "notes"; }

  static std::vector<int> codes_of(int n_ranks, int code) {
    return std::vector<int>(static_cast<size_t>(n_ranks), code);
  }

  // A run that is expected to finish, and to say nothing but what rank 0 says.
  void finish(const std::string& name, int n_ranks, const Words& more = {}) const {
    MpiRun run(notes(), n_ranks, train(name, more));
    ASSERT_EQ(codes_of(n_ranks, 0), run.wait_codes()) << run.log();
    EXPECT_EQ(0, run.wait()) << run.log();
    for (int rank = 0; rank < n_ranks; ++rank) {
      EXPECT_EQ("", run.err(rank));
      EXPECT_EQ(rank > 0, run.out(rank).empty()) << run.out(rank);
    }
    EXPECT_TRUE(run.left_nothing());
  }

  std::string metrics(const std::string& name) const { return dir(name) + "/metrics.jsonl"; }
  // Steps whose rows are there.
  int64_t steps_done(const std::string& name) const {
    constexpr std::string_view kRow = "{\"type\":\"step\"";
    const std::string text = text_of(metrics(name));
    int64_t n = 0;
    for (size_t at = text.find(kRow); at != text.npos; at = text.find(kRow, at + 1)) ++n;
    return n;
  }
  // False when the run ends before.
  bool wait_for_steps(MpiRun& run, const std::string& name, int64_t steps) const {
    return run.wait_for([&] { return steps_done(name) >= steps; });
  }
  std::string checkpoint(const std::string& name, int64_t step) const {
    return dir(name) + fmt::format("/checkpoints/step-{:08}", step);
  }
  Json exit_reason(const std::string& name) const {
    return Json::parse(text_of(dir(name) + "/exit_reason.json"), nullptr, false);
  }

  // Same losses and norms of every step, same evaluations, and the same checkpoint of `step`.
  void expect_same_run(const std::string& expected, const std::string& found, int64_t step) const {
    for (const char* type : {"step", "eval"}) {
      const std::vector<std::string> rows = exact_part(rows_of(metrics(expected), type));
      EXPECT_EQ(rows, exact_part(rows_of(metrics(found), type)));
      EXPECT_FALSE(rows.empty()) << type;
    }
    expect_same_checkpoint(checkpoint(expected, step), checkpoint(found, step));
  }

  static void expect_same_checkpoint(const std::string& expected, const std::string& found) {
    const auto state_of = [](const std::string& path) {
      Json state = Json::parse(text_of(path + "/state.json"));
      state.erase("config_toml");  // names the run folder
      return state;
    };
    EXPECT_EQ(state_of(expected), state_of(found));
    expect_same_tensors(expected, found);
  }
  // Bit for bit, whichever ranks wrote which part.
  static void expect_same_tensors(const std::string& expected, const std::string& found);

  // The same figures; sums of squares up to the order in which ranks add them.
  void expect_same_ledger(const std::string& expected, const std::string& found) const;

  const TemporaryFolder folder_{Storage::kMemory};
};

inline void RanksTest::expect_same_tensors(const std::string& expected, const std::string& found) {
  const CheckpointReader x(expected), y(found);
  // In the order of the files that begin with them.
  const auto sorted = [](std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return names;
  };
  ASSERT_EQ(sorted(x.names()), sorted(y.names()));
  const Json manifest = Json::parse(text_of(expected + "/manifest.json"));
  ASSERT_FALSE(manifest.at("tensors").empty());
  for (const Json& tensor : manifest.at("tensors")) {
    const std::string name = tensor.at("name");
    ASSERT_EQ("fp32", tensor.at("dtype")) << name;
    const int64_t rows = tensor.at("shape").at(0), cols = tensor.at("shape").at(1);
    std::vector<uint32_t> a(static_cast<size_t>(rows * cols)), b(a.size(), 1);
    x.read({name, ops::matrix(a.data(), ops::Dtype::kF32, rows, cols)});
    y.read({name, ops::matrix(b.data(), ops::Dtype::kF32, rows, cols)});
    EXPECT_TRUE(a == b) << name;
  }
}

inline void RanksTest::expect_same_ledger(const std::string& expected,
                                          const std::string& found) const {
  // Sums of FP64, printed as FP32: a sum that is a few 2^-53 off may become the next float.
  constexpr double kRelative = 0x1p-22;
  constexpr double kDecibels = 1e-5;  // 10 / ln 10 of that, and the rounding of up to 100 dB
  const auto rows = rows_of(dir(expected) + "/ledger.jsonl", "operand");
  auto others = rows_of(dir(found) + "/ledger.jsonl", "operand");
  ASSERT_FALSE(rows.empty());
  ASSERT_EQ(rows.size(), others.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    Json row = rows[i], other = others[i];
    for (const auto& [key, bound] :
         {std::pair("relative_mse", kRelative), std::pair("snr_db", kDecibels)}) {
      const Json a = row.at(key), b = other.at(key);
      row.erase(key);
      other.erase(key);
      if (a == b) continue;  // also null
      ASSERT_TRUE(a.is_number() && b.is_number()) << rows[i] << "\n" << others[i];
      const double scale = std::string(key) == "snr_db" ? 1.0 : a.get<double>();
      EXPECT_LE(std::abs(a.get<double>() - b.get<double>()), bound * scale) << key << " of " << row;
    }
    EXPECT_EQ(row, other);
  }
}

}  // namespace qstep::trainer::testing
