// Amdahl's prediction of what a recipe gains, from the times of single GEMMs and quantizers: if
// nothing else changed, the step would take
//
//   predicted B = A - sum over sites (GEMMs of A - GEMMs of B) + (quantizers of B - those of A)
//
// What was measured beyond that happened elsewhere: in caches, clocks, memory, other operations.
#pragma once

#include <cmath>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/bench/compare_state.h"

namespace qstep::trainer {

// A linear layer in all blocks together, ms of a step.
struct LinearGain {
  std::string op;
  double gemms_a_ms = 0, gemms_b_ms = 0;  // fprop, dgrad, wgrad
  double quant_a_ms = 0, quant_b_ms = 0;

  // What B saves; not above 0: this layer is better kept as A has it.
  double net_ms() const { return gemms_a_ms - gemms_b_ms - (quant_b_ms - quant_a_ms); }
};

struct CategoryChange {
  std::string category;
  double a_ms = 0, b_ms = 0;

  double change_ms() const { return b_ms - a_ms; }
};

struct Prediction {
  double step_a_ms = 0, step_b_ms = 0;  // mean over the segments that the times are of
  double gain = 1;                      // predicted, A over B
  double measured = 1;                  // gain of the comparison
  double winners_gain = 1;              // predicted, if only layers that win used the recipe
  std::vector<LinearGain> linears;      // the largest net gain first
  std::vector<CategoryChange>
      others;  // neither GEMMs of blocks nor quant; the largest change first

  double difference() const { return gain / measured - 1; }
  // More than this is not what the GEMMs and quantizers say.
  static constexpr double kExplained = 0.03;
  bool explained() const { return std::abs(difference()) <= kExplained; }
};

// None without parts of both sides: timing.level was not ops.
std::optional<Prediction> predict(const ComparePair& pair, double measured_gain);

nlohmann::ordered_json to_json(const Prediction& prediction);

// "attn +1.20 ms, host_gap -0.31 ms": the largest changes elsewhere, at most three.
std::string other_changes_text(const Prediction& prediction);

}  // namespace qstep::trainer
