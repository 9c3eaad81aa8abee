// Text from a model, one token after another, with a cache of keys and values.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trainer/inference/loaded_model.h"
#include "trainer/inference/sampling.h"
#include "trainer/model/model.h"

namespace qstep::trainer {

struct GenerationResult {
  std::vector<int32_t> tokens;  // what was generated, the prompt left out
  double prefill_s = 0;         // the whole prompt
  double decode_s = 0;          // every generated token but the first
};

class Generator {
 public:
  // Room for `max_positions` tokens, prompt included. Error (config) when learned positions do not
  // reach. Tokens from n_tokens on are never drawn: a model's vocabulary may be larger than its
  // tokenizer's.
  Generator(ops::Ops& ops, const LoadedModel& loaded, int64_t max_positions, int64_t n_tokens);

  // Up to n tokens behind the prompt (at least one token); ends early at `stop_token` (-1: never),
  // which is not part of the result. on_token hears each one and may end the generation by
  // returning false.
  GenerationResult generate(std::span<const int32_t> prompt, int64_t n,
                            const SamplingOptions& sampling, int32_t stop_token,
                            const std::function<bool(int32_t)>& on_token);

 private:
  std::span<const float> next_logits(std::span<const int32_t> tokens, int64_t first_position);

  ops::Ops& ops_;
  int64_t vocab_size_;
  int64_t n_tokens_;
  int64_t max_positions_;
  MemoryUse use_;
  std::vector<MemoryRow> memory_;  // the weights' as well
  ops::Buffer buffer_;
  std::vector<KvCache> caches_;
  ops::Tensor logits_;  // [1, V] FP32
  std::unique_ptr<ModelPrecision> precision_;
  std::unique_ptr<Model> model_;
  std::vector<float> host_logits_;
};

}  // namespace qstep::trainer
