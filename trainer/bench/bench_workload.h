// What the commands of `qstep bench` that run training steps share: which model, how many tokens,
// how many threads.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/config/config.h"

namespace qstep::trainer {

struct BenchWorkload {
  std::string model = "gpt2-124m";
  int64_t batch = 4;
  int64_t micro_batches = 1;  // of a step, of all ranks
  int64_t seq_len = 256;
  int64_t threads = 0;  // of each rank; 0 = its share of the machine
  std::vector<std::string> overrides;

  // Of this recipe; the vocabulary is known.
  Config config(const std::string& recipe) const;
  // Where they were asked for.
  void set_threads() const;
  // "gpt2-124m", with what was overridden.
  std::string model_text() const;
  // "1 x 4 sequences of 256 tokens | 2 threads"; of several, "| 4 ranks x 2 threads"
  std::string text(int n_ranks) const;
};

// --model, --batch, --micro-batches, --seq, --threads and KEY=VALUE.
void add_workload_options(CLI::App& command, BenchWorkload& workload);

nlohmann::ordered_json to_json(const BenchWorkload& workload, const Config& config, int n_ranks);

}  // namespace qstep::trainer
