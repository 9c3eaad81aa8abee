// Which tokens belong to which batch: arithmetic on a seed, no state. Batch (step, micro) is the
// same whatever was asked for before, by whom, or how many ranks share the work.
#pragma once

#include <cstdint>
#include <span>

#include "data/token_store.h"

namespace qstep::data {

struct LoaderOptions {
  int64_t seq_len = 0;          // T, tokens per sample
  int64_t micro_batch = 0;      // B, samples per micro-batch
  int64_t micros_per_step = 0;  // G, micro-batches per step over all ranks
  uint64_t seed = 0;
};

// The train part is cut into W = (num_tokens - 1) / T windows; window k holds tokens
// [k T, k T + T + 1). Sample number n = (step G + micro) B + b, b < B, belongs to epoch n / W and
// is window permutation(W, seed, epoch)(n mod W): every window once per epoch. The store must
// outlive the loader. All functions may run on any thread.
class Loader {
 public:
  // Throws Error where the train part has fewer than T + 1 tokens.
  Loader(const TokenStore& store, const LoaderOptions& options);

  const LoaderOptions& options() const { return options_; }
  int64_t batch_tokens() const { return options_.micro_batch * options_.seq_len; }  // B T
  int64_t windows() const { return windows_; }                                      // W, per epoch
  // Sample b of batch (step, micro): steps and micro-batches count from 0, micro < G.
  int64_t window(int64_t step, int64_t micro, int64_t b) const;

  // tokens[b,t] = x[t], targets[b,t] = x[t+1] of sample b's window x; both [B, T].
  void batch(int64_t step, int64_t micro, std::span<int32_t> tokens,
             std::span<int32_t> targets) const;

  // The validation part in order. Batches in all: what fills whole batches, but at least one when
  // there is one window (its rows then repeat); 0 when there is none.
  int64_t validation_batches() const;
  void validation_batch(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets) const;

 private:
  void fill_row(Part part, int64_t window, int64_t b, std::span<int32_t> tokens,
                std::span<int32_t> targets) const;
  void check_spans(std::span<int32_t> tokens, std::span<int32_t> targets) const;

  const TokenStore& store_;
  LoaderOptions options_;
  int64_t windows_;
  int64_t validation_windows_;
};

}  // namespace qstep::data
