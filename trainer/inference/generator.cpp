#include "trainer/inference/generator.h"

#include <algorithm>
#include <chrono>

namespace qstep::trainer {

using ops::Dtype;
using ops::Tensor;

namespace {

struct Layout {
  ModelActivations activations;
  PrecisionTensors precision;
  std::vector<KvCache> caches;
  Tensor logits;
};

Layout lay_out(ops::Arena& arena, const LoadedModel& loaded, int64_t positions) {
  const ModelConfig& model = loaded.config().model;
  const Dtype dtype = loaded.config().compute_dtype();
  Layout layout;
  layout.activations = lay_out_activations(arena, model, 1, positions, dtype, Purpose::kEvaluation);
  layout.precision = loaded.lay_out_precision(arena, positions);
  for (int64_t l = 0; l < model.n_layers; ++l) {
    const int64_t width = model.n_kv_heads * model.head_dim;
    layout.caches.push_back({.k = arena.take("key/value cache", dtype, positions, width),
                             .v = arena.take("key/value cache", dtype, positions, width)});
  }
  layout.logits = arena.take("logits", Dtype::kF32, 1, model.vocab_size);
  return layout;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Generator::Generator(ops::Ops& ops, const LoadedModel& loaded, int64_t max_positions,
                     int64_t n_tokens)
    : ops_(ops),
      vocab_size_(loaded.config().model.vocab_size),
      n_tokens_(std::min(n_tokens, vocab_size_)),
      max_positions_(max_positions),
      use_(loaded.memory_use()) {
  const ModelConfig& model = loaded.config().model;
  if (model.position == PositionKind::kLearned && max_positions > model.max_seq_len) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("prompt and generated text take {} positions, the model has {} "
                                 "learned ones; shorten the prompt or lower --tokens",
                                 max_positions, model.max_seq_len));
  }
  ops::Arena measure;
  lay_out(measure, loaded, max_positions);
  memory_ = joined_rows(memory_rows(measure), loaded.memory());
  buffer_ = naming_owners([&] { return ops.allocate(measure.peak_bytes()); },
                          [&] { return memory_; }, use_);
  ops::Arena place(buffer_);
  Layout layout = lay_out(place, loaded, max_positions);
  caches_ = std::move(layout.caches);
  logits_ = layout.logits;
  precision_ = loaded.precision(std::move(layout.precision));
  model_ = std::make_unique<Model>(ops, model, loaded.weights(), layout.activations, 1,
                                   max_positions, precision_.get());
  host_logits_.resize(static_cast<size_t>(vocab_size_));
}

std::span<const float> Generator::next_logits(std::span<const int32_t> tokens,
                                              int64_t first_position) {
  const auto n = static_cast<int64_t>(tokens.size());
  // Scratch memory of the operations grows in the first pass.
  naming_owners(
      [&] {
        ops_.upload(model_->activations().tokens.col_range(0, n), tokens.data());
        ops_.cast(logits_, model_->forward_cached(ops_, n, caches_, first_position));
        ops_.download(host_logits_.data(), logits_);
      },
      [&] { return memory_; }, use_);
  return std::span<const float>(host_logits_).first(static_cast<size_t>(n_tokens_));
}

GenerationResult Generator::generate(std::span<const int32_t> prompt, int64_t n,
                                     const SamplingOptions& sampling, int32_t stop_token,
                                     const std::function<bool(int32_t)>& on_token) {
  ops::check(!prompt.empty(), "generate: the prompt has no token");
  GenerationResult result;
  std::vector<int32_t> order;
  auto position = static_cast<int64_t>(prompt.size());
  const auto start = std::chrono::steady_clock::now();
  std::span<const float> logits = next_logits(prompt, 0);
  result.prefill_s = seconds_since(start);
  while (static_cast<int64_t>(result.tokens.size()) < n) {
    const int32_t token = sample_token(logits, sampling, position, order);
    if (token == stop_token) break;
    result.tokens.push_back(token);
    const bool more = on_token(token) && static_cast<int64_t>(result.tokens.size()) < n &&
                      position < max_positions_;
    if (!more) break;
    logits = next_logits({&token, 1}, position++);
  }
  result.decode_s = seconds_since(start) - result.prefill_s;
  return result;
}

}  // namespace qstep::trainer
