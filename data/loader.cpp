#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "data/permutation.h"

namespace qstep::data {
namespace {

int64_t count_windows(const TokenStore& store, Part part, int64_t seq_len) {
  const uint64_t tokens = store.num_tokens(part);
  return tokens == 0 ? 0 : static_cast<int64_t>((tokens - 1) / static_cast<uint64_t>(seq_len));
}

void require(bool condition, const std::string& text) {
  if (!condition) throw Error("loader: " + text);
}

}  // namespace

Loader::Loader(const TokenStore& store, const LoaderOptions& options)
    : store_(store), options_(options), windows_(0), validation_windows_(0) {
  require(options.seq_len >= 1 && options.micro_batch >= 1 && options.micros_per_step >= 1,
          fmt::format("expected seq_len, micro_batch and micros_per_step of at least 1, found {}, "
                      "{} and {}",
                      options.seq_len, options.micro_batch, options.micros_per_step));
  windows_ = count_windows(store, Part::kTrain, options.seq_len);
  validation_windows_ = count_windows(store, Part::kValidation, options.seq_len);
  if (windows_ == 0) {
    throw Error(fmt::format(
        "{}: expected at least seq_len + 1 = {} train tokens, found {}; use a shorter seq_len or "
        "more text",
        store.path(), options.seq_len + 1, store.num_tokens(Part::kTrain)));
  }
}

int64_t Loader::window(int64_t step, int64_t micro, int64_t b) const {
  require(step >= 0 && micro >= 0 && micro < options_.micros_per_step,
          fmt::format("expected step >= 0 and micro in [0, {}), found {} and {}",
                      options_.micros_per_step, step, micro));
  const int64_t n = (step * options_.micros_per_step + micro) * options_.micro_batch + b;
  const Permutation shuffle(windows_, options_.seed, n / windows_);
  return static_cast<int64_t>(shuffle(n % windows_));
}

void Loader::batch(int64_t step, int64_t micro, std::span<int32_t> tokens,
                   std::span<int32_t> targets) const {
  check_spans(tokens, targets);
  for (int64_t b = 0; b < options_.micro_batch; ++b) {
    fill_row(Part::kTrain, window(step, micro, b), b, tokens, targets);
  }
}

int64_t Loader::validation_batches() const {
  const int64_t whole = validation_windows_ / options_.micro_batch;
  return validation_windows_ > 0 ? std::max<int64_t>(1, whole) : 0;
}

void Loader::validation_batch(int64_t index, std::span<int32_t> tokens,
                              std::span<int32_t> targets) const {
  check_spans(tokens, targets);
  require(index >= 0 && index < validation_batches(),
          fmt::format("{} has {} validation batches, number {} asked for", store_.path(),
                      validation_batches(), index));
  for (int64_t b = 0; b < options_.micro_batch; ++b) {
    const int64_t n = index * options_.micro_batch + b;
    fill_row(Part::kValidation, n % validation_windows_, b, tokens, targets);
  }
}

void Loader::fill_row(Part part, int64_t window, int64_t b, std::span<int32_t> tokens,
                      std::span<int32_t> targets) const {
  const int64_t T = options_.seq_len;
  thread_local std::vector<uint32_t> x;  // T + 1 tokens; grows once per thread
  x.resize(T + 1);
  store_.read(part, static_cast<uint64_t>(window * T), x);
  std::copy(x.begin(), x.end() - 1, tokens.begin() + b * T);
  std::copy(x.begin() + 1, x.end(), targets.begin() + b * T);
}

void Loader::check_spans(std::span<int32_t> tokens, std::span<int32_t> targets) const {
  require(std::ssize(tokens) == batch_tokens() && std::ssize(targets) == batch_tokens(),
          fmt::format("expected room for {} tokens and targets, found {} and {}", batch_tokens(),
                      tokens.size(), targets.size()));
}

}  // namespace qstep::data
