#include "trainer/config/rank_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <string_view>
#include <utility>

#include "ops/error.h"
#include "trainer/base/nearest.h"
#include "trainer/config/tensor_check.h"

namespace qstep::trainer {

namespace {

bool possible(int64_t n_micros, Reduction reduction, int64_t n_ranks) {
  if (n_ranks == 1) return true;
  if (n_micros % n_ranks != 0) return false;
  return reduction == Reduction::kRank ||
         std::has_single_bit(static_cast<uint64_t>(n_micros / n_ranks));
}

// "1 rank", "4 ranks", or "4 groups of parallel.tensor = 2 ranks".
std::string ranks_text(int64_t n, int64_t tensor = 1) {
  const std::string_view plural = n == 1 ? "" : "s";
  return tensor == 1 ? fmt::format("{} rank{}", n, plural)
                     : fmt::format("{} group{} of parallel.tensor = {} ranks", n, plural, tensor);
}

// ", or write parallel.tensor = 2 or 4": those with which n_ranks can share the run; empty where
// there are none.
std::string tensor_advice(const Config& config, int64_t n_ranks) {
  std::vector<int64_t> values;
  for (const int64_t t : possible_tensors(config)) {
    if (n_ranks % t == 0 &&
        possible(config.train.micros_per_step(), config.parallel.reduction, n_ranks / t)) {
      values.push_back(t);
    }
  }
  if (values.empty()) return "";
  return fmt::format(", or write parallel.tensor = {}",
                     nearest_numbers(values, config.parallel.tensor));
}

}  // namespace

std::vector<int64_t> possible_ranks(int64_t micros_per_step, Reduction reduction) {
  std::vector<int64_t> ranks;
  for (int64_t r = 1; r <= micros_per_step; ++r) {
    if (possible(micros_per_step, reduction, r)) ranks.push_back(r);
  }
  return ranks;
}

std::vector<std::string> rank_problems(const Config& config, int64_t n_ranks) {
  const TrainConfig& t = config.train;
  const Reduction reduction = config.parallel.reduction;
  const int64_t tensor = config.parallel.tensor, G = t.micros_per_step();
  std::vector<std::string> problems = tensor_problems(config);
  const auto problem = [&]<class... Args>(fmt::format_string<Args...> text, Args&&... args) {
    problems.push_back(fmt::format(text, std::forward<Args>(args)...));
  };
  std::vector<int64_t> others = possible_ranks(G, reduction);
  for (int64_t& n : others) n *= tensor;
  const std::string start = fmt::format("start {} ranks{}", nearest_numbers(others, n_ranks),
                                        tensor == 1 ? "" : tensor_advice(config, n_ranks));

  if (n_ranks % tensor != 0) {
    problem("parallel.tensor = {} does not divide the {} of this run: {}", tensor,
            ranks_text(n_ranks), start);
    return problems;
  }
  const int64_t n_data = n_ranks / tensor;
  if (possible(G, reduction, n_data)) return problems;
  if (G % n_data != 0) {
    problem(
        "train.global_batch = {} is {} micro-batches of train.micro_batch = {}, which {} cannot "
        "share evenly: {}, or write train.global_batch = {}",
        t.global_batch, G, t.micro_batch, ranks_text(n_data, tensor), start,
        (G / n_data + 1) * n_data * t.micro_batch);
    return problems;
  }
  const auto share = static_cast<uint64_t>(G / n_data);
  problem(
      "parallel.reduction = \"tree\" wants a power of two of micro-batches on every rank, found {} "
      "({} on {}): {}, or write train.global_batch = {}, or parallel.reduction = \"rank\"",
      share, G, ranks_text(n_data, tensor), start,
      static_cast<int64_t>(std::bit_ceil(share)) * n_data * t.micro_batch);
  return problems;
}

void require_ranks(const Config& config, int64_t n_ranks) {
  const std::vector<std::string> problems = rank_problems(config, n_ranks);
  if (problems.empty()) return;
  throw ops::Error(ops::ExitCode::kConfig,
                   fmt::format("{} cannot share this run\n  {}", ranks_text(n_ranks),
                               fmt::join(problems, "\n  ")));
}

}  // namespace qstep::trainer
