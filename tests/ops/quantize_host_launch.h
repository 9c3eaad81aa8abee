// A Launch (ops/quantize/quantize_passes.h) that goes through the threads of a GPU one after
// another.
#pragma once

#include <cstring>
#include <vector>

#include "ops/quantize/quantize_calls.h"
#include "ops/team.h"
#include "ops/workspace.h"

namespace qstep::test {

class HostQuantizeLaunch {
 public:
  // backwards: the last thread of each phase first.
  explicit HostQuantizeLaunch(bool backwards = false) : backwards_(backwards) {}

  template <class T>
  T* scratch(int64_t n) const {
    scratch_.assign(static_cast<size_t>(n) * sizeof(T) / 16 + 1, Line{kPoison, kPoison});
    return reinterpret_cast<T*>(scratch_.data());
  }
  void zero(void* memory, int64_t bytes) const {
    ++launches_;
    std::memset(memory, 0, static_cast<size_t>(bytes));
  }
  template <class Work>
  void blocks(const Work& work) const {
    ++launches_;
    std::vector<Line> shared(static_cast<size_t>(work.shared_bytes()) / 16 + 1);
    for (int64_t i = 0; i < work.blocks(); ++i) {
      std::fill(shared.begin(), shared.end(), Line{kPoison, kPoison});
      work(ops::device::SerialTeam(Work::kThreads, backwards_),
           reinterpret_cast<char*>(shared.data()), i);
    }
  }
  template <class F>
  void each(int64_t n, const F& f) const {
    ++launches_;
    for (int64_t i = 0; i < n; ++i) f(i);
  }
  void download(void* to, const void* from, int64_t bytes) const {
    ++downloads_;
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  int launches() const { return launches_; }
  int downloads() const { return downloads_; }

 private:
  static constexpr uint64_t kPoison = 0x7FF7A5A57FF7A5A5ull;
  struct alignas(16) Line {
    uint64_t low, high;
  };

  bool backwards_;
  mutable std::vector<Line> scratch_;
  mutable int launches_ = 0, downloads_ = 0;
};

}  // namespace qstep::test

// Compiled once, in quantize_host_launch.cpp: the quantizers of every spec.
namespace qstep::ops::device {
extern template void quantize_with(const test::HostQuantizeLaunch&, const QuantizedTensor&,
                                   const QuantizedTensor&, const Tensor&, const QuantCall&);
}  // namespace qstep::ops::device
