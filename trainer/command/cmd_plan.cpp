// qstep plan: what a model needs, by arithmetic alone.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/command/commands.h"
#include "trainer/config/config_options.h"
#include "trainer/config/rank_check.h"
#include "trainer/machine/machine.h"
#include "trainer/model/weights.h"
#include "trainer/plan/plan_prediction.h"
#include "trainer/step/machine_memory.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

// Parameters by what they do. The part of "blocks.3.qkv.weight" is found by its layer's name.
struct Part {
  std::string_view name;
  int64_t n_parameters = 0;  // without vocabulary padding
  int64_t n_stored = 0;      // with it
};
using Parts = std::array<Part, 5>;

Parts parts_of(const ModelConfig& model) {
  Parts parts{{{"embeddings"}, {"attention"}, {"mlp"}, {"norms"}, {"head"}}};
  for (const WeightSpec& weight : weight_list(model)) {
    const auto has = [&](std::string_view part) {
      return weight.name.find(part) != std::string::npos;
    };
    const size_t part = has("wte") || has("wpe")         ? 0
                        : has("norm")                    ? 3
                        : has("qkv") || has("attn_out.") ? 1
                        : has("head")                    ? 4
                                                         : 2;
    parts[part].n_parameters += weight.used_rows * weight.cols;
    parts[part].n_stored += weight.rows * weight.cols;
  }
  return parts;
}

// Bytes a parameter takes. In FP32 the master is the weight itself.
struct StateBytes {
  std::string_view precision;
  int64_t weight, master, gradient, moments;
  int64_t sum() const { return weight + master + gradient + moments; }
};
constexpr std::array<StateBytes, 2> kStateBytes{
    {{kFp32Recipe, 4, 0, 4, 8}, {kBf16Recipe, 2, 4, 4, 8}}};

int64_t bytes_of(const std::vector<MemoryRow>& rows, const std::string& owner) {
  int64_t bytes = 0;
  for (const MemoryRow& row : rows) bytes += owner.empty() || row.owner == owner ? row.bytes : 0;
  return bytes;
}

// "each of 8 ranks, tensor 2 x data 4"
std::string ranks_title(const Config& config, int n_ranks) {
  const int64_t tensor = config.parallel.tensor;
  return fmt::format(
      "each of {} ranks{}", n_ranks,
      tensor == 1 ? "" : fmt::format(", tensor {} x data {}", tensor, n_ranks / tensor));
}

// Of the first rank.
std::vector<MemoryRow> run_memory(const Config& config, const std::optional<MachineModel>& machine,
                                  int n_ranks = 1) {
  return machine ? machine_memory(config, *machine, n_ranks) : training_memory(config, n_ranks);
}

void print_run_memory(const Config& config, const std::optional<MachineModel>& machine, int n_ranks,
                      bool decoded) {
  Config alone = config;
  alone.parallel.tensor = 1;
  std::vector<std::vector<MemoryRow>> table{run_memory(alone, machine)};
  if (n_ranks > 1) table.push_back(run_memory(config, machine, n_ranks));
  const std::string title = ranks_title(config, n_ranks);
  const size_t width = std::max<size_t>(20, title.size() + 3);
  fmt::print("\n\ntraining in {} ({}), micro-batches of {} sequences, T = {}\n",
             config.precision.recipe, emulation_text(decoded), config.train.micro_batch,
             config.train.seq_len);
  fmt::print("  {:<24}{:>14}", "", "one process");
  if (n_ranks > 1) fmt::print("{:>{}}", title, width);
  const auto line = [&](const std::string& name, const std::string& owner) {
    fmt::print("\n  {:<24}{:>14}", name, bytes_text(bytes_of(table.front(), owner)));
    if (n_ranks > 1) fmt::print("{:>{}}", bytes_text(bytes_of(table.back(), owner)), width);
  };
  for (const MemoryRow& row : table.back()) line(row.owner, row.owner);
  line("sum", "");
  fmt::print("\n");
}

struct Arguments {
  std::vector<std::string> words;
  int ranks = 0;  // 0: one tensor-parallel group
  std::string gpu, machine_file;
  int nodes = 0;
  bool sweep = false, json = false;
};

// What a step is predicted for; nothing without --gpu and --machine.
std::optional<MachineModel> machine_of(const Arguments& arguments, const Config& config) {
  if (!arguments.machine_file.empty()) return read_machine_file(arguments.machine_file);
  if (arguments.gpu.empty()) return std::nullopt;
  if (arguments.gpu != kMeasuredMachine) return machine_model(arguments.gpu);
  constexpr double kSecondsPerFigure = 0.5;
  constexpr int kRounds = 5;
  const Machine machine = read_machine();
  // A gain is one over bf16.
  std::vector<ops::Dtype> types{ops::Dtype::kBf16};
  if (config.compute_dtype() == ops::Dtype::kF32) types.push_back(ops::Dtype::kF32);
  CpuProbe probe(config.model, types);
  for (int i = 0; i < kRounds; ++i) probe.round();
  return measured_machine(measure_peak(kSecondsPerFigure), machine.cpu_name, machine.memory_bytes,
                          probe.costs());
}

int ranks_of(const Arguments& arguments, const Config& config,
             const std::optional<MachineModel>& machine) {
  if (arguments.ranks > 0) return arguments.ranks;
  if (arguments.nodes > 0 && machine) return arguments.nodes * machine->gpus_per_node;
  return static_cast<int>(config.parallel.tensor);
}

void print_plan(const Arguments& arguments) {
  Config config = load_model_words(arguments.words).config;
  const std::optional<MachineModel> machine = machine_of(arguments, config);
  const int n_ranks = ranks_of(arguments, config, machine);
  const bool vocab_assumed = config.model.vocab_size == 0;
  if (vocab_assumed) config.model.vocab_size = kAssumedVocab;
  const ModelConfig& m = config.model;
  const int64_t seq_len = config.train.seq_len;
  const int64_t n_total = n_parameters(m);
  const double causal = flops_per_token(m, seq_len, AttentionCount::kCausal);
  const double full = flops_per_token(m, seq_len, AttentionCount::kFull);
  const Parts parts = parts_of(m);
  int64_t n_stored = 0;
  for (const Part& part : parts) n_stored += part.n_stored;
  require_ranks(config, n_ranks);

  std::optional<Prediction> prediction;
  if (machine) prediction = predict(config, *machine, n_ranks, arguments.sweep);

  if (arguments.json) {
    Json json = {{"preset", m.preset},
                 {"n_parameters", n_total},
                 {"n_stored_parameters", n_stored},
                 {"vocab_size", m.vocab_size},
                 {"vocab_assumed", vocab_assumed},
                 {"seq_len", seq_len},
                 {"causal_flops_per_token", causal},
                 {"full_flops_per_token", full}};
    for (const Part& part : parts) json["parts"][std::string(part.name)] = part.n_parameters;
    for (const StateBytes& s : kStateBytes) {
      json["state_bytes"][std::string(s.precision)] = {{"weights", s.weight * n_stored},
                                                       {"master", s.master * n_stored},
                                                       {"gradients", s.gradient * n_stored},
                                                       {"moments", s.moments * n_stored},
                                                       {"sum", s.sum() * n_stored}};
    }
    json["recipe"] = config.precision.recipe;
    json["emulated"] = prediction ? prediction->step.emulated : emulated(config);
    json["ranks"] = n_ranks;
    json["tensor"] = config.parallel.tensor;
    json["data"] = n_ranks / config.parallel.tensor;
    const std::vector<MemoryRow> memory = run_memory(config, machine, n_ranks);
    for (const MemoryRow& row : memory) json["run_bytes"][row.owner] = row.bytes;
    json["run_bytes"]["sum"] = bytes_of(memory, "");
    if (prediction) json["prediction"] = to_json(*prediction, *machine);
    fmt::print("{}\n", json.dump(2));
    return;
  }

  fmt::print("{}\n", m.preset.empty() ? "a model by its dimensions" : m.preset);
  fmt::print("  {} layers, width {}, {} heads and {} key/value heads of {}, {} MLP {}\n",
             m.n_layers, m.width, m.n_heads, m.n_kv_heads, m.head_dim, choice_name(m.activation),
             m.ffn_width);
  fmt::print("  {} norm{}, {} positions up to {}, {} head, vocabulary {}{}\n\n",
             choice_name(m.norm), m.qk_norm ? " and QK-norm" : "", choice_name(m.position),
             m.max_seq_len, m.tied_head ? "tied" : "untied", m.vocab_size,
             vocab_assumed ? " (assumed: the corpus decides)" : "");

  fmt::print("{:<12}{:>18}\n", "parameters", with_commas(n_total));
  for (const Part& part : parts) {
    if (part.n_parameters == 0) continue;
    fmt::print("  {:<10}{:>18}{:>7.1f} %\n", part.name, with_commas(part.n_parameters),
               100.0 * static_cast<double>(part.n_parameters) / static_cast<double>(n_total));
  }

  const double tokens = static_cast<double>(config.train.global_batch * seq_len);
  fmt::print("\nFLOP per token, forward and backward, T = {}\n", seq_len);
  fmt::print("  {:<10}{:>18}\n  {:<10}{:>18}\n", "causal", si_text(causal, "FLOP"), "full",
             si_text(full, "FLOP"));
  fmt::print("  a step of {} sequences: {} (causal)\n", config.train.global_batch,
             si_text(causal * tokens, "FLOP"));

  fmt::print("\n{:<12}", "memory");
  for (const StateBytes& s : kStateBytes) fmt::print("{:>18}", s.precision);
  const auto row = [&](std::string_view name, int64_t StateBytes::*bytes) {
    fmt::print("\n  {:<10}", name);
    for (const StateBytes& s : kStateBytes) {
      const int64_t each = s.*bytes;
      fmt::print("{:>18}", each == 0 ? "-" : bytes_text(each * n_stored));
    }
  };
  row("weights", &StateBytes::weight);
  row("master", &StateBytes::master);
  row("gradients", &StateBytes::gradient);
  row("moments", &StateBytes::moments);
  fmt::print("\n  {:<10}", "sum");
  for (const StateBytes& s : kStateBytes) {
    fmt::print("{:>18}", bytes_text(s.sum() * n_stored));
  }
  print_run_memory(config, machine, n_ranks,
                   prediction ? prediction->step.emulated : emulated(config));
  if (prediction) print_prediction(*prediction, config, *machine);
}

}  // namespace

void add_plan_command(CLI::App& app, int&) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* plan =
      app.add_subcommand("plan",
                         "Parameters, memory, flops and predicted step time of a model, without "
                         "building it");
  plan->add_option("words", arguments->words,
                   "a preset or a TOML file, then overrides section.key=value")
      ->type_name("MODEL|FILE [KEY=VALUE ...]")
      ->required();
  plan->add_option("--ranks", arguments->ranks,
                   "ranks of the run, for the memory of each (of the first, in JSON); without it "
                   "parallel.tensor of them")
      ->check(CLI::Range(1, 1 << 20));
  CLI::Option* gpu = plan->add_option("--gpu", arguments->gpu,
                                      "predict the step on this machine, of the table in "
                                      "trainer/plan/README.md; cpu: this one, measured");
  CLI::Option* file = plan->add_option("--machine", arguments->machine_file,
                                       "the same on a machine of your own, described in TOML")
                          ->type_name("FILE")
                          ->excludes(gpu);
  plan->add_option("--nodes", arguments->nodes, "ranks as so many nodes of the machine have")
      ->check(CLI::Range(1, 1 << 16))
      ->excludes("--ranks");
  plan->add_flag("--sweep", arguments->sweep,
                 "also every tensor size and micro-batch, the fastest that fit first");
  plan->add_flag("--json", arguments->json, "as JSON");
  plan->footer(
      "Examples:\n"
      "  qstep plan llama-405b\n"
      "  qstep plan gpt2-124m train.global_batch=64 --ranks 16\n"
      "  qstep plan llama-1b parallel.tensor=4 --ranks 8\n"
      "  qstep plan gpt2-124m model.n_layers=24 train.seq_len=512\n"
      "  qstep plan run.toml --json\n"
      "  qstep plan llama-8b precision.recipe=nvfp4 --gpu gb300 --nodes 2\n"
      "  qstep plan llama-70b train.seq_len=8192 train.global_batch=256 --gpu h100 --nodes 8 "
      "--sweep");
  plan->callback([arguments, gpu, file] {
    if (gpu->count() + file->count() == 0 && (arguments->nodes > 0 || arguments->sweep)) {
      throw CLI::RequiresError("--nodes and --sweep", "--gpu or --machine");
    }
    print_plan(*arguments);
  });
}

}  // namespace qstep::trainer
