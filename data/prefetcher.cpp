#include "data/prefetcher.h"

#include <fmt/format.h>

#include <algorithm>

namespace qstep::data {
namespace {

// Two steps of very many micro-batches need not all be in memory.
constexpr int64_t kMaxRingBytes = int64_t{64} << 20;
// One in the trainer's hands, one ready, one being read.
constexpr int64_t kMinSlots = 3;

}  // namespace

Prefetcher::Prefetcher(const Loader& loader, const PrefetcherOptions& options)
    : loader_(loader), options_(options) {
  if (options.micro_begin < 0 || options.micro_begin >= options.micro_end ||
      options.micro_end > loader.options().micros_per_step || options.start_step < 0 ||
      options.steps_ahead < 1) {
    throw Error(
        fmt::format("prefetcher: expected 0 <= micro_begin < micro_end <= {}, start_step >= 0 and "
                    "steps_ahead >= 1; found micros [{}, {}), start_step {}, steps_ahead {}",
                    loader.options().micros_per_step, options.micro_begin, options.micro_end,
                    options.start_step, options.steps_ahead));
  }
  const int64_t n = loader.batch_tokens();
  const int64_t slot_bytes = 2 * n * static_cast<int64_t>(sizeof(int32_t));
  const int64_t wanted = options.steps_ahead * (options.micro_end - options.micro_begin) + 1;
  const int64_t n_slots = std::max(kMinSlots, std::min(wanted, kMaxRingBytes / slot_bytes));
  memory_.resize(n_slots * 2 * n);
  slots_.resize(n_slots);
  for (int64_t i = 0; i < n_slots; ++i) {
    const std::span<int32_t> slot(memory_.data() + i * 2 * n, 2 * n);
    slots_[i].tokens = slot.first(n);
    slots_[i].targets = slot.last(n);
  }
  thread_ = std::thread([this] { run(); });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

const Batch& Prefetcher::next() {
  std::unique_lock lock(mutex_);
  if (holding_) {
    holding_ = false;
    ++n_released_;
    changed_.notify_all();
  }
  changed_.wait(lock, [this] { return n_ready_ > n_released_ || failure_; });
  if (n_ready_ == n_released_) std::rethrow_exception(failure_);
  holding_ = true;
  return slots_[n_released_ % std::ssize(slots_)];
}

void Prefetcher::run() {
  const int64_t n = loader_.batch_tokens();
  int64_t step = options_.start_step, micro = options_.micro_begin;
  for (int64_t number = 0;; ++number) {
    const int64_t slot = number % std::ssize(slots_);
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || number - n_released_ < std::ssize(slots_); });
      if (stop_) return;
    }
    const auto begin = std::chrono::steady_clock::now();
    std::exception_ptr failure;
    try {
      int32_t* memory = memory_.data() + slot * 2 * n;
      loader_.batch(step, micro, {memory, static_cast<size_t>(n)},
                    {memory + n, static_cast<size_t>(n)});
      slots_[slot].step = step;
      slots_[slot].micro = micro;
    } catch (...) {
      failure = std::current_exception();
    }
    const auto end = std::chrono::steady_clock::now();
    {
      const std::lock_guard lock(mutex_);
      if (failure) {
        failure_ = failure;
      } else {
        n_ready_ = number + 1;
      }
    }
    changed_.notify_all();
    if (failure) return;
    if (options_.on_read) options_.on_read({step, micro, begin, end});
    if (++micro == options_.micro_end) {
      micro = options_.micro_begin;
      ++step;
    }
  }
}

}  // namespace qstep::data
