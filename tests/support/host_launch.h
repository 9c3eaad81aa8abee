// Runs the CUDA backend's function objects on the host: what ops/cuda/cuda_launch.cuh launches, one
// team after the other, one thread after the other. Shared and scratch memory start as NaNs.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/error.h"
#include "ops/team.h"

namespace qstep::test {

class HostLaunch {
 public:
  // Backwards: from the last team and thread to the first. Kernels must give the same bits.
  explicit HostLaunch(bool backwards = false) : backwards_(backwards) {}

  template <class Kernel>
  void teams(int64_t n_teams, int team_size, int64_t shared_floats, const Kernel& kernel) const {
    using namespace ops::device;
    ops::check(team_size >= 1 && team_size <= kMaxTeam && (team_size & (team_size - 1)) == 0,
               "the size of a team is no power of two");
    const int64_t block_floats = block_threads(team_size) / team_size * shared_floats;
    ops::check(shared_floats % 4 == 0 && block_floats <= kMaxSharedFloats, "shared memory");
    const SerialTeam team(team_size, backwards_);
    for_each(n_teams, [&](int64_t i) {
      std::vector<float> shared(static_cast<size_t>(shared_floats),
                                std::numeric_limits<float>::quiet_NaN());
      kernel(team, shared.data(), i);
    });
  }

  template <class F>
  void each(int64_t n, const F& f) const {
    for_each(n, f);
  }

  template <class T>
  T* scratch(int64_t count) const {
    scratch_.assign(static_cast<size_t>(count) * sizeof(T) / sizeof(double) + 1,
                    std::numeric_limits<double>::quiet_NaN());
    return reinterpret_cast<T*>(scratch_.data());
  }

 private:
  template <class F>
  void for_each(int64_t n, const F& f) const {
    for (int64_t i = 0; i < n; ++i) f(backwards_ ? n - 1 - i : i);
  }

  bool backwards_;
  mutable std::vector<double> scratch_;
};

// f(launch) in both orders.
template <class F>
void for_each_order(F&& f) {
  for (const bool backwards : {false, true}) f(HostLaunch(backwards));
}

}  // namespace qstep::test
