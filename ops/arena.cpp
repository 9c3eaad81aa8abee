#include "ops/arena.h"

#include <algorithm>

namespace qstep::ops {

namespace {

constexpr int64_t kAlignment = 64;  // one cache line, one AVX-512 register

int64_t round_up(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Tensor Arena::take(std::string_view owner, Dtype dtype, int64_t rows, int64_t cols) {
  const int64_t bytes = round_up(rows * cols * size_bytes(dtype));
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
