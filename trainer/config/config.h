// The whole configuration of a run. config_options.h lists every option once: name, default, help,
// parsing, printing and the checks all come from that list.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "precision/recipe.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer {

enum class Schedule : uint8_t { kConstant, kLinear, kCosine, kWsd };
enum class Reduction : uint8_t { kTree, kRank };

// Where master weights and moments live: a part on every data-parallel rank (ZeRO stage 1), or all
// on all.
enum class OptimizerState : uint8_t { kSharded, kReplicated };

// What gradients travel in between data-parallel ranks; they are summed in FP32 either way.
enum class GradientType : uint8_t { kFp32, kBf16 };

// What an evaluation computes with: the recipe's forward operands, or the compute type throughout.
enum class EvalPrecision : uint8_t { kRecipe, kCompute };

// The recipes that quantize nothing.
inline constexpr std::string_view kFp32Recipe = "fp32", kBf16Recipe = "bf16";

struct DataConfig {
  std::string train;          // token store, holds its own validation part
  bool allow_change = false;  // resume although the store is not the one that was trained on
};

struct TrainConfig {
  int64_t steps = 1000;
  int64_t global_batch = 32;  // sequences per optimizer step
  int64_t micro_batch = 4;    // sequences per micro-batch: the unit of arithmetic
  int64_t seq_len = 512;      // T
  uint64_t seed = 1;
  int64_t eval_every = 100;   // steps; 0 = never
  int64_t eval_batches = 16;  // micro-batches per evaluation
  int64_t max_bad_steps = 5;  // non-finite steps in a row before the run ends (code 30)

  int64_t micros_per_step() const { return global_batch / micro_batch; }
};

struct OptimizerConfig {
  double lr = 1e-3;
  double min_lr = 0.0;  // where linear, cosine and WSD end
  Schedule schedule = Schedule::kCosine;
  int64_t warmup_steps = 0;
  double decay_fraction = 0.2;  // WSD: the last part of the run, linear to min_lr
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // on matrices, not on norms and biases
  double clip_norm = 1.0;     // 0 = no clipping
};

struct PrecisionConfig {
  std::string recipe{kBf16Recipe};  // a name or a path, as load_recipe takes it
  precision::StochasticRounder stochastic_rounding = precision::StochasticRounder::kPortable;
  EvalPrecision eval = EvalPrecision::kRecipe;
  int64_t ledger_every = 100;  // steps between rows of the numeric ledger; 0 = off
  precision::Recipe loaded;    // what `recipe` names; set together with it (set_recipe)
};

struct ParallelConfig {
  int64_t tensor = 1;  // ranks that share every layer; the rest is data parallel
  Reduction reduction = Reduction::kTree;  // order in which micro-batch gradients are added
  OptimizerState optimizer = OptimizerState::kSharded;
  GradientType gradients = GradientType::kFp32;
  int64_t check_every = 100;  // steps between comparisons of what ranks hold alike
};

// What computes. kAuto: a GPU where this build and this machine have one, otherwise the CPU.
enum class Device : uint8_t { kAuto, kCpu, kCuda };

struct RunConfig {
  std::string dir = "runs/default";
  std::string resume = "auto";  // auto, never, or a checkpoint folder
  int64_t save_every = 0;       // steps; 0 = only at the end and on a signal
  int64_t keep_last = 2;        // checkpoints kept
  int64_t log_every = 1;        // steps between printed lines; metrics.jsonl has every step
  int64_t threads = 0;          // of this rank; 0 = its share of the cores
  double max_minutes = 0;       // 0 = no limit but the batch job's
  double hang_limit_s = 60;     // of several ranks: the least time after which a step hangs
  Device device = Device::kCpu;
  bool cuda_graphs = true;  // a GPU gets what steps repeat as CUDA graphs
};

// What a run notes of its own time (README.md, Timing).
enum class TimingLevel : uint8_t { kOff, kPhases, kOps };

struct TimingConfig {
  TimingLevel level = TimingLevel::kOps;
  int64_t every = 10;       // steps between the rows of metrics.rank00000.jsonl
  int64_t trace_first = 0;  // first step that trace/rank00000.json shows; 0 = none
  int64_t trace_steps = 5;  // how many
  // What MFU and SOL are held against: "measure", "off", TFLOP/s, or a machine of the table
  // (rank_peaks.h).
  std::string peak = "measure";
};

struct Config {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  PrecisionConfig precision;
  ParallelConfig parallel;
  RunConfig run;
  TimingConfig timing;

  ops::Dtype compute_dtype() const {
    return precision.loaded.compute == qstep::precision::ComputeType::kFp32 ? ops::Dtype::kF32
                                                                            : ops::Dtype::kBf16;
  }
};

// Where a value came from, by option name: "default", "preset gpt2-124m", "derived" (from the other
// dimensions), "config.toml:12", "command line".
using Origins = std::map<std::string, std::string>;

struct LoadedConfig {
  Config config;
  Origins origins;
};

// Reads the TOML file (none when empty), then applies overrides "section.key=value" in order, the
// value being TOML or a bare word. Throws one Error (config) that lists every problem: unknown keys
// with the nearest key, wrong types with what was found, values out of range, contradictions, each
// with its place and a value that works. Without any model key the model is the preset llama-15m.
// model.vocab_size may be left 0: the corpus decides it (finish_model). A rotary preset's
// max_seq_len grows to train.seq_len.
LoadedConfig load_config(const std::string& path, std::span<const std::string> overrides);

// [FILE] [section.key=value ...] as on the command line: the first word is the file unless it is an
// override.
LoadedConfig load_config_words(std::span<const std::string> words);

// The same, but the first word may also be a preset: a model alone is described at its longest
// sequence.
LoadedConfig load_model_words(std::vector<std::string> words);

// From TOML text, for configurations stored in checkpoints; `origin` names the text in errors.
// `recipe_toml`, unless empty, is the text of the recipe, which then is not looked up.
LoadedConfig parse_config(const std::string& toml_text, const std::string& origin,
                          std::span<const std::string> overrides,
                          const std::string& recipe_toml = {});

// Another recipe, by name or path. Throws an Error (config) as load_recipe does.
void set_recipe(Config& config, const std::string& name_or_path);

// Sets the vocabulary from the corpus unless it was given (by a preset too), and checks the
// finished model against corpus, run and recipe. Throws an Error (config).
void finish_model(Config& config, int64_t corpus_vocab_size);

// The resolved configuration as TOML that load_config reads back to the same values.
std::string to_toml(const Config& config);

// The same with the origin of every value as a comment, aligned.
std::string to_toml(const LoadedConfig& loaded);

// XXH3-128 of to_toml without [run] and [timing] and of what the recipe computes: equal when two
// runs compute the same thing.
std::string config_hash(const Config& config);

}  // namespace qstep::trainer
