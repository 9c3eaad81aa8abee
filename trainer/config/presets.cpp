// The models by name. Initialisation: N(0, 0.02^2) for both families (Radford et al. 2019, as
// released; Touvron et al. 2023 do not state theirs, 0.02 is the initializer_range of the released
// configurations). The small Llama-like models leave the vocabulary to the corpus; their sizes
// assume kAssumedVocab.
#include <fmt/format.h>

#include "trainer/base/nearest.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer {

ModelConfig gpt2_model(const Gpt2Dims& d) {
  ModelConfig m;
  m.vocab_size = d.vocab_size;
  m.n_layers = d.n_layers;
  m.width = d.width;
  m.n_heads = d.n_heads;
  m.n_kv_heads = d.n_heads;
  m.head_dim = d.width / d.n_heads;
  m.ffn_width = 4 * d.width;
  m.max_seq_len = d.max_seq_len;
  m.norm = NormKind::kLayer;
  m.position = PositionKind::kLearned;
  m.activation = ops::Activation::kGelu;
  m.bias = true;
  m.tied_head = true;
  m.norm_eps = 1e-5;
  return m;
}

namespace {

ModelConfig gpt2(int64_t n_layers, int64_t width, int64_t n_heads, int64_t vocab_size) {
  return gpt2_model({.n_layers = n_layers,
                     .width = width,
                     .n_heads = n_heads,
                     .vocab_size = vocab_size,
                     .max_seq_len = 1024});
}

// Touvron et al. 2023: RMSNorm, rotary positions, SwiGLU, no biases; grouped queries as in Llama 2
// and 3.
struct LlamaDims {
  int64_t n_layers, width, n_heads, n_kv_heads, head_dim, ffn_width;
};
ModelConfig llama(const LlamaDims& d) {
  ModelConfig m;
  m.n_layers = d.n_layers;
  m.width = d.width;
  m.n_heads = d.n_heads;
  m.n_kv_heads = d.n_kv_heads;
  m.head_dim = d.head_dim;
  m.ffn_width = d.ffn_width;
  m.max_seq_len = 2048;
  m.tied_head = true;  // an untied head would be a large part of a small model
  return m;
}

// Grattafiori et al. 2024, table 3, and the released configurations. max_seq_len is the context
// before the long-context stage: the frequency scaling of that stage is not part of this model.
enum class Head : uint8_t { kTied, kUntied };
ModelConfig llama3(const LlamaDims& d, Head head) {
  ModelConfig m = llama(d);
  m.vocab_size = 128256;
  m.max_seq_len = 8192;
  m.tied_head = head == Head::kTied;
  m.rope_theta = 500000.0;
  return m;
}

// Yang et al. 2025 (Qwen3 technical report), table 1, and the released configuration.
ModelConfig qwen3_600m() {
  ModelConfig m = llama({28, 1024, 16, 8, 128, 3072});
  m.vocab_size = 151936;
  m.max_seq_len = 32768;
  m.qk_norm = true;
  m.norm_eps = 1e-6;
  m.rope_theta = 1e6;
  return m;
}

std::vector<Preset> make_presets() {
  constexpr int64_t kGpt2Vocab = 50257;
  std::vector<Preset> list = {
      {"gpt2-10m", "GPT-2's layers, small; vocabulary from the corpus", gpt2(5, 384, 6, 0)},
      {"gpt2-124m", "GPT-2 small", gpt2(12, 768, 12, kGpt2Vocab)},
      {"gpt2-355m", "GPT-2 medium", gpt2(24, 1024, 16, kGpt2Vocab)},
      {"gpt2-774m", "GPT-2 large", gpt2(36, 1280, 20, kGpt2Vocab)},
      {"gpt2-1.5b", "GPT-2 XL", gpt2(48, 1600, 25, kGpt2Vocab)},
      {"llama-1m", "for tests: trains in seconds; vocabulary from the corpus",
       llama({3, 128, 4, 2, 32, 256})},
      {"llama-15m", "for a first run on a laptop; vocabulary from the corpus",
       llama({8, 384, 6, 3, 64, 1024})},
      {"llama-60m", "for an hour on a workstation; vocabulary from the corpus",
       llama({12, 640, 10, 5, 64, 1792})},
      {"llama-150m", "for precision studies; vocabulary from the corpus",
       llama({24, 768, 12, 4, 64, 2048})},
      {"llama-350m", "for precision studies on a GPU; vocabulary from the corpus",
       llama({20, 1280, 20, 5, 64, 3456})},
      {"llama-1b", "Llama 3.2 1B", llama3({16, 2048, 32, 8, 64, 8192}, Head::kTied)},
      {"llama-3b", "Llama 3.2 3B", llama3({28, 3072, 24, 8, 128, 8192}, Head::kTied)},
      {"llama-8b", "Llama 3 8B", llama3({32, 4096, 32, 8, 128, 14336}, Head::kUntied)},
      {"llama-70b", "Llama 3 70B", llama3({80, 8192, 64, 8, 128, 28672}, Head::kUntied)},
      {"llama-405b", "Llama 3.1 405B", llama3({126, 16384, 128, 8, 128, 53248}, Head::kUntied)},
      {"qwen3-0.6b", "Qwen3 0.6B: RMSNorm on every query and key head", qwen3_600m()},
  };
  for (Preset& preset : list) preset.model.preset = preset.name;
  return list;
}

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> list = make_presets();
  return list;
}

const ModelConfig& preset_model(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset.model;
    names.push_back(preset.name);
  }
  throw ops::Error(ops::ExitCode::kConfig,
                   fmt::format("no preset is called \"{}\"; the nearest is \"{}\"; there are {}",
                               name, nearest(name, names), fmt::join(names, ", ")));
}

}  // namespace qstep::trainer
