// The time of a training step on a machine, without running it: step_work's counts at the rates of
// machines.h, communication hidden as far as the trainer hides it. trainer/plan/README.md has the
// formulas and how far published runs are from them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trainer/plan/utilisation.h"

namespace qstep::trainer {

// What an operation waits for.
enum class Bound : uint8_t { kMatrix, kLoops, kMemory, kLaunch, kLink, kNetwork };
inline constexpr std::array<std::string_view, 6> kBoundNames{
    "matrix units", "loops over elements", "memory", "launches", "link", "network"};
constexpr std::string_view name(Bound bound) { return kBoundNames[static_cast<size_t>(bound)]; }

// A phase of step_time_report.md section 3.2, of one rank and step.
struct PhaseTime {
  std::string phase;
  double flops = 0, bytes = 0;
  std::array<double, kBoundNames.size()> seconds_by{};  // by what its operations wait for

  double seconds() const;
  Bound bound() const;  // the largest part
};

struct ProductTime {
  ProductWork work;
  RunsAs runs;
  double seconds = 0;  // of all of them in a step
  Bound bound = Bound::kMatrix;
};

struct QuantizeTime {
  QuantizeWork work;
  double read_bytes = 0, written_bytes = 0;  // of all of them in a step
  double seconds = 0;
};

// One kind of collective of this rank.
struct CommTime {
  std::string_view phase, group, op;  // "grad_reduce", "data", "reduce_scatter"
  double calls = 0, bytes = 0;        // sent by this rank in a step
  double total_s = 0, exposed_s = 0;
  Bound bound = Bound::kLink;
};

struct StepTime {
  StepWork work;
  std::vector<PhaseTime> phases;  // in the order of the report; none that takes no time
  std::vector<ProductTime> products;
  std::vector<QuantizeTime> quantizations;
  std::vector<CommTime> comm;
  LeastTime least;
  bool emulated = false;  // some format is decoded to the compute type on this machine

  double seconds() const;
  double tokens_per_s() const { return work.step_tokens / seconds(); }
  Utilisation used() const { return utilisation(least, seconds()); }
};

// The ranks can share the run (rank_check.h). Throws an Error (config) where the machine's figures
// do not say enough: no product in the compute type, more ranks than its link joins and no network.
StepTime predict_step(const Config& config, const MachineModel& machine, int n_ranks);

}  // namespace qstep::trainer
