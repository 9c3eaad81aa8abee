#include "trainer/rank_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>

#include "ops/error.h"

namespace qstep::trainer {

namespace {

bool possible(int64_t n_micros, Reduction reduction, int64_t n_ranks) {
  if (n_ranks == 1) return true;
  if (n_micros % n_ranks != 0) return false;
  return reduction == Reduction::kRank ||
         std::has_single_bit(static_cast<uint64_t>(n_micros / n_ranks));
}

// The nearest below and above, as far as there are any.
std::string nearest_ranks(const std::vector<int64_t>& ranks, int64_t n_ranks) {
  const auto above = std::upper_bound(ranks.begin(), ranks.end(), n_ranks);
  std::vector<int64_t> near;
  if (above != ranks.begin()) near.push_back(*(above - 1));
  if (above != ranks.end()) near.push_back(*above);
  return fmt::format("{}", fmt::join(near, " or "));
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
  const int64_t G = t.micros_per_step();
  if (possible(G, reduction, n_ranks)) return {};
  const std::string others = nearest_ranks(possible_ranks(G, reduction), n_ranks);
  if (G % n_ranks != 0) {
    const int64_t more = (G / n_ranks + 1) * n_ranks * t.micro_batch;
    return {
        fmt::format("train.global_batch = {} is {} micro-batches of train.micro_batch = {}, "
                    "which {} ranks cannot share evenly: start {} ranks, or write "
                    "train.global_batch = {}",
                    t.global_batch, G, t.micro_batch, n_ranks, others, more)};
  }
  const auto share = static_cast<uint64_t>(G / n_ranks);
  const int64_t more = static_cast<int64_t>(std::bit_ceil(share)) * n_ranks * t.micro_batch;
  return {
      fmt::format("parallel.reduction = \"tree\" wants a power of two of micro-batches on every "
                  "rank, found {} ({} on {} ranks): start {} ranks, or write "
                  "train.global_batch = {}, or parallel.reduction = \"rank\"",
                  share, G, n_ranks, others, more)};
}

void require_ranks(const Config& config, int64_t n_ranks) {
  const std::vector<std::string> problems = rank_problems(config, n_ranks);
  if (problems.empty()) return;
  throw ops::Error(ops::ExitCode::kConfig, fmt::format("{} ranks cannot share this run\n  {}",
                                                       n_ranks, fmt::join(problems, "\n  ")));
}

}  // namespace qstep::trainer
