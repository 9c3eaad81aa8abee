// Where a step's time goes. One phase is open at any moment, so the phases of a step add up to it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>

namespace qstep::trainer {

// kComm: the step stands still for other ranks; what they exchange beside the computation is not in
// it.
enum class Phase : uint8_t { kData, kForward, kBackward, kOptimizer, kComm, kOther };

inline constexpr std::array<std::string_view, 6> kPhaseNames = {"data",      "forward", "backward",
                                                                "optimizer", "comm",    "other"};

using PhaseTimes = std::array<double, kPhaseNames.size()>;  // ms, in the order of Phase

class PhaseTimer {
 public:
  // Forgets what was measured; the open phase is kOther.
  void start();
  // Closes the open phase and opens this one; nothing when it is open already. Returns the one that
  // was open.
  Phase enter(Phase phase);
  // Closes the open phase and returns all times; their sum is the time since start.
  const PhaseTimes& stop();

 private:
  using Clock = std::chrono::steady_clock;
  void close();

  Phase open_ = Phase::kOther;
  Clock::time_point since_;
  PhaseTimes ms_{};
};

double total_ms(const PhaseTimes& times);

}  // namespace qstep::trainer
