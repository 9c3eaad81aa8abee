#include "ops/arena.h"

#include <algorithm>

namespace qstep::ops {

namespace {

constexpr int64_t kAlignment = 64;  // one cache line, one AVX-512 register

// More than any machine addresses (five levels of pages reach 2^57 bytes); small enough for a
// hundred of them to be added up.
constexpr int64_t kMostBytes = int64_t{1} << 56;

int64_t round_up(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Bytes of a matrix behind `used` others.
int64_t checked_bytes(int64_t used, int64_t rows, int64_t cols, int64_t item) {
  int64_t bytes = 0;
  const bool overflows =
      __builtin_mul_overflow(rows, cols, &bytes) || __builtin_mul_overflow(bytes, item, &bytes);
  if (overflows || bytes > kMostBytes || round_up(bytes) > kMostBytes - used) {
    throw Error(ExitCode::kConfig, fmt::format("a matrix of {} x {} needs more memory than can be "
                                               "counted; lower train.micro_batch, train.seq_len or "
                                               "the model's size",
                                               rows, cols));
  }
  return round_up(bytes);
}

}  // namespace

Tensor Arena::take(std::string_view owner, Dtype dtype, int64_t rows, int64_t cols) {
  const int64_t bytes = checked_bytes(used_, rows, cols, size_bytes(dtype));
  char* const data = measuring() ? nullptr : base_ + used_;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  check(measuring() || used_ <= capacity_, "arena: the placing pass took more than was measured");

  live_.emplace_back(owner, bytes);
  const int64_t owned = by_owner_[live_.back().first] += bytes;
  int64_t& peak = peak_by_owner_[live_.back().first];
  peak = std::max(peak, owned);
  return matrix(data, dtype, rows, cols);
}

void Arena::release(int64_t used, size_t n_live) {
  while (live_.size() > n_live) {
    by_owner_[live_.back().first] -= live_.back().second;
    live_.pop_back();
  }
  used_ = used;
}

}  // namespace qstep::ops
