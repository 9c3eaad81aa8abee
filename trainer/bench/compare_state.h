// What a comparison of recipes has measured so far, and what follows from it: compare.json, written
// every few seconds and after every pair and training run. trainer/bench/README.md documents its keys.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/bench/abba.h"
#include "trainer/config/config.h"
#include "trainer/plan/step_parts.h"

namespace qstep::trainer {

inline constexpr int kCompareSchema = 1;

// What the measurements of a folder have in common. Everything else may change from one start to
// the next: more blocks and seeds, another threshold.
struct CompareSetting {
  std::vector<std::string> recipes;  // the first is the baseline
  std::vector<std::string> hashes;   // config_hash of the configuration with each
  std::vector<bool> emulated;        // of each
  std::string config_toml;           // with the first
  std::string data;                  // the token store; empty: synthetic tokens
  int64_t n_parameters = 0;
  int64_t tokens_per_step = 0;
  int64_t warmup = 10;  // steps of a segment that are not counted
  int64_t steps = 20;   // steps of a segment that are
  int64_t threads = 0;
  std::string cpu;
};

// Of sides A and B in turn, A the baseline.
struct ComparePair {
  size_t recipe = 0;                // B; 0: the baseline again, the noise floor
  bool observer = false;            // of the baseline: A without timing (timing.level), B with it
  std::vector<double> segments_ms;  // median step time of each, in the order of side_of
  // Where the steps of the sides went, of whole blocks; without segments where timing.level is not
  // ops.
  std::array<MeanParts, 2> parts{};

  MeanParts& parts_of(Side side) { return parts[static_cast<size_t>(side)]; }
  const MeanParts& parts_of(Side side) const { return parts[static_cast<size_t>(side)]; }
};

struct CompareLoss {
  size_t recipe = 0;
  uint64_t seed = 0;
  std::optional<double> loss;  // of the last evaluation, nats; none: losses were not finite
};

struct CompareState {
  CompareSetting setting;
  std::vector<ComparePair> pairs;
  std::vector<CompareLoss> losses;  // in the order they were trained
  std::vector<std::string> notes;   // about the recipes, for readers

  // The pair with this recipe as B; a new one, behind the others, where there is none.
  ComparePair& pair(size_t recipe, bool observer = false);
  const CompareLoss* loss(size_t recipe, uint64_t seed) const;
};

// Median of a side's segments, ms; 0: not measured yet. Those of one pair were measured in turn;
// between pairs the machine's speed may have changed.
double side_ms(const ComparePair& pair, Side side);

// No verdict on the speed of a pair where a side is emulated: its time says nothing about hardware
// that has the format.
bool pair_emulated(const CompareState& state, const ComparePair& pair);

// Of a recipe's losses to the baseline's with the same seeds.
struct LossGap {
  int64_t seeds = 0;          // that both have finished with finite losses
  int64_t not_finite = 0;     // of the recipe's runs
  double loss = 0;            // mean over all finite ones, nats; NaN: none
  double gap = 0;             // mean of recipe - baseline over the seeds
  double standard_error = 0;  // of the gap; NaN of fewer than two
};
LossGap loss_gap(const CompareState& state, size_t recipe);

// What differs, a line each; empty: measurements of the one may be joined with those of the other.
std::string setting_difference(const CompareSetting& before, const CompareSetting& after);

// The whole file: setting, measurements, and results under these options. `finished`: nothing is
// left to measure of what was asked for.
nlohmann::ordered_json to_json(const CompareState& state, const AbbaOptions& options,
                               bool finished);

// The file's measurements. A block that was interrupted is left out: its halves would be of two
// processes, and of two states of the machine. Error (config) for a file of another kind.
CompareState read_compare_state(const std::string& path);

}  // namespace qstep::trainer
