// Reads batches ahead of the trainer on its own thread, in the order the trainer needs them.
// Rule: changes when batches are read, never which; what next() returns is what Loader::batch
// gives.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "data/loader.h"

namespace qstep::data {

struct Batch {
  int64_t step = 0;
  int64_t micro = 0;                         // global number within the step
  std::span<const int32_t> tokens, targets;  // [B, T]
};

// When a batch was read.
struct BatchRead {
  int64_t step = 0;
  int64_t micro = 0;
  std::chrono::steady_clock::time_point begin, end;
};

struct PrefetcherOptions {
  int64_t start_step = 0;   // the first batch is (start_step, micro_begin)
  int64_t micro_begin = 0;  // this rank's micro-batches of every step: [micro_begin, micro_end)
  int64_t micro_end = 0;
  int64_t steps_ahead = 2;  // depth of the ring, in steps of this rank
  // Hears of every batch on the reading thread, which it must not hold up. May be empty.
  std::function<void(const BatchRead&)> on_read = {};
};

// The loader must outlive the prefetcher. next() is for one thread.
class Prefetcher {
 public:
  Prefetcher(const Loader& loader, const PrefetcherOptions& options);
  ~Prefetcher();  // waits for at most the batch being read
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // The next batch in order; waits until it is there. Valid until the following call. An exception
  // of the reading thread is thrown here, after the batches that were read before it.
  const Batch& next();

 private:
  void run();

  const Loader& loader_;
  const PrefetcherOptions options_;
  std::vector<int32_t> memory_;  // tokens and targets of every slot: nothing is allocated later
  std::vector<Batch> slots_;     // batch number n lives in slot n mod slots

  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t n_ready_ = 0;     // batches read so far
  int64_t n_released_ = 0;  // batches that the trainer is done with
  bool holding_ = false;    // the trainer holds batch n_released_
  bool stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: starts when everything else exists
};

}  // namespace qstep::data
