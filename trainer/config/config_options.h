// The one list of options. Defaults, help, parsing, checks, printing and `qstep config list` all
// walk it.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "trainer/config/config.h"

namespace qstep::trainer {

// The model of a configuration that names neither a preset nor dimensions.
inline constexpr std::string_view kDefaultPreset = "llama-15m";

// ---- names of choices -----------------------------------------------------------------

template <class E>
using Choice = std::pair<std::string_view, E>;

inline constexpr std::array kNormNames{Choice<NormKind>{"rms", NormKind::kRms},
                                       Choice<NormKind>{"layer", NormKind::kLayer}};
inline constexpr std::array kPositionNames{Choice<PositionKind>{"rope", PositionKind::kRope},
                                           Choice<PositionKind>{"learned", PositionKind::kLearned}};
inline constexpr std::array kActivationNames{
    Choice<ops::Activation>{"gelu", ops::Activation::kGelu},
    Choice<ops::Activation>{"relu2", ops::Activation::kRelu2},
    Choice<ops::Activation>{"swiglu", ops::Activation::kSwiglu}};
inline constexpr std::array kScheduleNames{Choice<Schedule>{"constant", Schedule::kConstant},
                                           Choice<Schedule>{"linear", Schedule::kLinear},
                                           Choice<Schedule>{"cosine", Schedule::kCosine},
                                           Choice<Schedule>{"wsd", Schedule::kWsd}};
inline constexpr std::array kReductionNames{Choice<Reduction>{"tree", Reduction::kTree},
                                            Choice<Reduction>{"rank", Reduction::kRank}};
inline constexpr std::array kGradientTypeNames{Choice<GradientType>{"fp32", GradientType::kFp32},
                                               Choice<GradientType>{"bf16", GradientType::kBf16}};
inline constexpr std::array kOptimizerStateNames{
    Choice<OptimizerState>{"sharded", OptimizerState::kSharded},
    Choice<OptimizerState>{"replicated", OptimizerState::kReplicated}};
inline constexpr std::array kTimingLevelNames{Choice<TimingLevel>{"off", TimingLevel::kOff},
                                              Choice<TimingLevel>{"phases", TimingLevel::kPhases},
                                              Choice<TimingLevel>{"ops", TimingLevel::kOps}};
inline constexpr std::array kEvalPrecisionNames{
    Choice<EvalPrecision>{"recipe", EvalPrecision::kRecipe},
    Choice<EvalPrecision>{"bf16", EvalPrecision::kCompute}};
inline constexpr std::array kDeviceNames{Choice<Device>{"auto", Device::kAuto},
                                         Choice<Device>{"cpu", Device::kCpu},
                                         Choice<Device>{"cuda", Device::kCuda}};

constexpr const auto& choices_of(Device) { return kDeviceNames; }
constexpr const auto& choices_of(NormKind) { return kNormNames; }
constexpr const auto& choices_of(PositionKind) { return kPositionNames; }
constexpr const auto& choices_of(ops::Activation) { return kActivationNames; }
constexpr const auto& choices_of(Schedule) { return kScheduleNames; }
constexpr const auto& choices_of(Reduction) { return kReductionNames; }
constexpr const auto& choices_of(GradientType) { return kGradientTypeNames; }
constexpr const auto& choices_of(OptimizerState) { return kOptimizerStateNames; }
constexpr const auto& choices_of(EvalPrecision) { return kEvalPrecisionNames; }
constexpr const auto& choices_of(TimingLevel) { return kTimingLevelNames; }

// The names that precision/ gives its own.
template <class E>
requires requires(E value) { precision::names_of(value); }
constexpr const auto& choices_of(E value) { return precision::names_of(value); }

template <class T>
concept HasChoices = requires(T value) {
  choices_of(value);
};

template <HasChoices E>
constexpr std::string_view choice_name(E value) {
  for (const auto& [name, choice] : choices_of(value)) {
    if (choice == value) return name;
  }
  return "";
}

// ---- what a value may be --------------------------------------------------------------

struct Limits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_excluded = false;
  bool max_excluded = false;
  std::span<const std::string_view> words{};  // strings: the only ones allowed, when given
  bool not_empty = false;                     // strings
};

inline constexpr double kMaxCount =
    9007199254740992.0;                           // 2^53: integers above it are typing errors
inline constexpr double kMaxDimension = 1 << 30;  // products of two stay below 2^63

constexpr Limits at_least(double min, double max = kMaxCount) { return {.min = min, .max = max}; }
constexpr Limits positive() { return {.min = 0, .min_excluded = true, .max_excluded = true}; }
constexpr Limits not_negative() { return {.min = 0, .max_excluded = true}; }
constexpr Limits fraction_below_one() { return {.min = 0, .max = 1, .max_excluded = true}; }

// f(name, field, help, limits) for every option, in the order of printing.
template <class ConfigT, class F>
void for_each_option(ConfigT& c, F&& f) {
  static_assert(std::is_same_v<std::remove_const_t<ConfigT>, Config>);
  const Limits any{};
  const Limits dimension = at_least(0, kMaxDimension);

  auto& m = c.model;
  f("model.preset", m.preset,
    "a model by name (qstep config presets); other model.* keys change it", any);
  f("model.vocab_size", m.vocab_size, "vocabulary; 0 = the corpus's", dimension);
  f("model.n_layers", m.n_layers, "transformer blocks", dimension);
  f("model.width", m.width, "channels of the residual stream", dimension);
  f("model.n_heads", m.n_heads, "query heads", dimension);
  f("model.n_kv_heads", m.n_kv_heads, "key and value heads, divides n_heads; 0 = n_heads",
    dimension);
  f("model.head_dim", m.head_dim, "size of a head; 0 = width / n_heads", dimension);
  f("model.ffn_width", m.ffn_width,
    "hidden width of the MLP; 0 = 4 width, or 8/3 width rounded up to 64s for swiglu", dimension);
  f("model.max_seq_len", m.max_seq_len, "longest sequence, in tokens; 0 = train.seq_len",
    dimension);
  f("model.norm", m.norm, "RMSNorm, or LayerNorm with bias", any);
  f("model.position", m.position, "rotary, or learned position embeddings", any);
  f("model.activation", m.activation, "tanh-GELU, squared ReLU, or gated SiLU", any);
  f("model.bias", m.bias, "linear layers carry a bias", any);
  f("model.qk_norm", m.qk_norm, "RMSNorm on every query and key head", any);
  f("model.tied_head", m.tied_head, "the output head is the token embedding", any);
  f("model.norm_eps", m.norm_eps, "added to the variance in norms", positive());
  f("model.rope_theta", m.rope_theta, "base of the rotary frequencies", positive());
  f("model.init_std", m.init_std,
    "standard deviation of initial weights; residual projections / sqrt(2 n_layers)", positive());

  auto& d = c.data;
  f("data.train", d.train, "token store (qstep data prepare); holds its own validation part", any);
  f("data.allow_change", d.allow_change, "resume although the store's content has changed", any);

  auto& t = c.train;
  f("train.steps", t.steps, "optimizer steps", at_least(1));
  f("train.global_batch", t.global_batch, "sequences per optimizer step",
    at_least(1, kMaxDimension));
  f("train.micro_batch", t.micro_batch,
    "sequences per micro-batch: the unit of arithmetic, divides global_batch",
    at_least(1, kMaxDimension));
  f("train.seq_len", t.seq_len, "tokens per sequence", at_least(1, kMaxDimension));
  f("train.seed", t.seed, "of initialisation and data order", Limits{.min = 0});
  f("train.eval_every", t.eval_every, "steps between evaluations; 0 = never", at_least(0));
  f("train.eval_batches", t.eval_batches, "micro-batches per evaluation", at_least(1));
  f("train.max_bad_steps", t.max_bad_steps,
    "non-finite steps in a row before the run ends with code 30", at_least(1));

  auto& o = c.optimizer;
  f("optimizer.lr", o.lr, "peak learning rate", not_negative());
  f("optimizer.min_lr", o.min_lr, "where linear, cosine and wsd end", not_negative());
  f("optimizer.schedule", o.schedule, "course of the learning rate after warm-up", any);
  f("optimizer.warmup_steps", o.warmup_steps, "steps of linear warm-up from 0", at_least(0));
  f("optimizer.decay_fraction", o.decay_fraction, "wsd: last part of the run, linear to min_lr",
    Limits{.min = 0, .max = 1, .min_excluded = true});
  f("optimizer.beta1", o.beta1, "decay of the first moment", fraction_below_one());
  f("optimizer.beta2", o.beta2, "decay of the second moment", fraction_below_one());
  f("optimizer.eps", o.eps, "added to the root of the second moment", positive());
  f("optimizer.weight_decay", o.weight_decay, "on matrices, not on norms and biases",
    not_negative());
  f("optimizer.clip_norm", o.clip_norm, "largest global gradient norm; 0 = no clipping",
    not_negative());

  auto& p = c.precision;
  f("precision.recipe", p.recipe,
    "number formats: a recipe by name (qstep recipe list) or a path to one of your own",
    Limits{.not_empty = true});
  f("precision.stochastic_rounding", p.stochastic_rounding,
    "where the recipe rounds to E2M1 stochastically: portable has the same bits on every device; "
    "hardware, for compute capability 10.0 and 10.3, has the GPU round: faster, other bits",
    any);
  f("precision.eval", p.eval, "what evaluations run in: the recipe, or BF16 throughout", any);
  f("precision.ledger_every", p.ledger_every,
    "steps between rows of the numeric ledger of quantized operands; 0 = off", at_least(0));

  f("parallel.tensor", c.parallel.tensor,
    "ranks that share every layer (tensor and sequence parallel); the rest is data parallel",
    at_least(1, 1024));
  f("parallel.reduction", c.parallel.reduction,
    "order in which micro-batch gradients are added: tree gives the same bits for any split", any);
  f("parallel.optimizer", c.parallel.optimizer,
    "master weights and moments: a part on every rank (ZeRO-1), or all on all; same bits", any);
  f("parallel.gradients", c.parallel.gradients,
    "what gradients travel in between ranks: bf16 halves their bytes, and bits follow from the "
    "number of data-parallel ranks (one sends and rounds nothing)",
    any);
  f("parallel.check_every", c.parallel.check_every,
    "steps between comparisons of the weights that ranks hold alike; 0 = before every save only",
    at_least(0));

  auto& r = c.run;
  f("run.dir", r.dir, "run folder: metrics, checkpoints, resolved configuration",
    Limits{.not_empty = true});
  f("run.resume", r.resume, "auto (newest checkpoint, if any), never, or a checkpoint folder",
    Limits{.not_empty = true});
  f("run.save_every", r.save_every, "steps between checkpoints; 0 = at the end and on a signal",
    at_least(0));
  f("run.keep_last", r.keep_last, "checkpoints kept", at_least(1));
  f("run.log_every", r.log_every, "steps between printed lines; metrics.jsonl has every step",
    at_least(1));
  f("run.threads", r.threads, "per rank; 0 = its share of the cores that it may use",
    at_least(0, 1024));
  f("run.hang_limit_s", r.hang_limit_s,
    "several ranks: a step that takes longer than this, and than ten usual ones, ends the run with "
    "code 41",
    positive());
  f("run.max_minutes", r.max_minutes,
    "save and end with code 11 before this time is over; 0 = no limit but the Slurm job's",
    not_negative());

  f("run.device", r.device,
    "what computes; cuda: a GPU of its own for every rank, a backend that has not been tested on "
    "one yet; auto: that where every rank has one",
    any);
  f("run.cuda_graphs", r.cuda_graphs,
    "a GPU gets what steps repeat recorded as CUDA graphs, not call by call; same bits", any);

  f("timing.level", c.timing.level,
    "what is noted of a step's time: the phases, waits for other ranks too, or every operation",
    any);
  f("timing.every", c.timing.every, "steps between rows of metrics.rank00000.jsonl, ...",
    at_least(1));
  f("timing.trace_first", c.timing.trace_first,
    "first step of a trace for Perfetto or chrome://tracing in trace/; 0 = no trace", at_least(0));
  f("timing.trace_steps", c.timing.trace_steps, "steps of the trace", at_least(1));
  f("timing.peak", c.timing.peak,
    "what MFU and SOL are held against: measure (a processor; a known GPU has its data sheet's), "
    "off, a rank's TFLOP/s in the type that the recipe computes in, or a machine of qstep plan "
    "--gpu",
    Limits{.not_empty = true});
}

// ---- values as text -------------------------------------------------------------------

std::string toml_string(std::string_view text);  // quoted and escaped
std::string toml_value(double value);            // reads back to the same bits, always a TOML float

inline std::string toml_value(const std::string& value) { return toml_string(value); }
inline std::string toml_value(bool value) { return value ? "true" : "false"; }
inline std::string toml_value(int value) { return std::to_string(value); }
inline std::string toml_value(int64_t value) { return std::to_string(value); }
inline std::string toml_value(uint64_t value) { return std::to_string(value); }
template <HasChoices E>
std::string toml_value(E value) {
  return toml_string(choice_name(value));
}

// "integer", "number", "true or false", "text", or the choices: "cosine" | "wsd" | ...
template <class T>
std::string type_name(const T& value, const Limits& limits) {
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_integral_v<T>) {
    return "integer";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "number";
  } else {
    std::string joined;
    const auto add = [&](std::string_view word) {
      if (!word.empty()) joined += (joined.empty() ? "" : " | ") + toml_string(word);
    };
    if constexpr (HasChoices<T>) {
      for (const auto& [name, choice] : choices_of(value)) add(name);
    } else {
      for (const std::string_view word : limits.words) add(word);
    }
    return joined.empty() ? "text" : joined;
  }
}

// Options that exclude each other, one text each, which begins with the name of an option. Those in
// `faulty` (values that were refused already) are left out of it.
std::vector<std::string> contradictions(const Config& config, const std::set<std::string>& faulty);

// "train" of "train.steps", and "steps".
inline std::string_view section_of(std::string_view name) { return name.substr(0, name.find('.')); }
inline std::string_view key_of(std::string_view name) { return name.substr(name.find('.') + 1); }

}  // namespace qstep::trainer
