// What a run left in its folder, read for reports. Nothing is computed here, and what a file lacks
// stays empty.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/run/ledger_file.h"

namespace qstep::trainer::report {

inline constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// ---- metrics.jsonl -----------------------------------------------------------------------------

using TimesMs = std::map<std::string, double>;  // by phase

struct Start {
  int64_t step = 1, time_unix_s = 0;
  std::string config_hash, recipe;
  bool emulated = false;
  int64_t ranks = 1, tensor = 1, n_parameters = 0;
  double flops_per_token_causal = kMissing;
  // What steps were held against; empty where nothing was known.
  bool peak_known = false;  // the row says whether it was
  std::string peak_machine, peak_source;
  std::map<std::string, double> peak_flops_per_s;  // by ProductFormat's name
  double peak_memory_bytes_per_s = 0;
};

// What the last start ran on (run_facts.h); a group that a row lacks is empty.
using FactTexts = std::map<std::string, std::string>;  // by name
struct Facts {
  bool recorded = false;
  FactTexts build, machine, libraries, environment;
};

struct Step {
  int64_t step = 0;
  double loss = kMissing, lr = kMissing, grad_norm = kMissing;  // NaN: not finite, or not there
  double step_ms = kMissing;
  int64_t tokens = 0, tokens_total = 0, peak_rss_bytes = 0;
  bool skipped = false;
  std::string non_finite_input;
  TimesMs phases_ms, breakdown_ms;  // by pass; by what the time went into (empty in older runs)
  double comm_busy_ms = 0, comm_exposed_ms = kMissing;
  int64_t comm_bytes = 0;
  std::vector<std::string> tags;
  // As logs of other trainers tell them; NaN in rows of ours.
  double tokens_per_s = kMissing, tokens_per_s_per_device = kMissing;
  double model_flops_per_s_per_device = kMissing;
};

struct Evaluation {
  int64_t step = 0, tokens = 0;
  double loss = kMissing, bits_per_byte = kMissing, eval_ms = 0;
  std::string precision;
};

struct Save {
  int64_t step = 0;
  double save_ms = 0;
};

// ---- metrics.rankNNNNN.jsonl -------------------------------------------------------------------

struct RankStart {
  int64_t step = 1, rank = 0, tensor_rank = 0, data_rank = 0, threads = 0;
  std::string host;
  double note_ns = kMissing;  // of noting one call
};

// Sums over the `steps` steps that end with `step`.
struct Window {
  int64_t step = 0, steps = 1, rank = 0;
};

struct PhaseSum : Window {
  std::string phase, pass;
  int64_t layer = -1, calls = 0;  // layer -1: outside the blocks
  double ms = 0;
};

struct GemmSum : Window {
  std::string op, pass, format_a, format_b, runs_as;  // runs_as: empty in older runs
  int64_t layer = -1, m = 0, n = 0, k = 0, calls = 0;
  bool emulated = false;
  double ms = 0;
};

struct CommSum : Window {
  std::string group, op;
  int64_t calls = 0, bytes = 0;
  double total_ms = 0, exposed_ms = 0;
};

struct RankMemory {
  int64_t step = 0, rank = 0, bytes = 0;
  std::string owner;
};

// ---- all of it ---------------------------------------------------------------------------------

enum class Ending : uint8_t { kRecorded, kRunning, kKilled };

// Of a log that another trainer wrote (peer_log.h).
struct PeerLog {
  std::string tool;   // "Megatron-LM"
  std::string times;  // what a time of its lines is
};

struct Run {
  std::optional<PeerLog> peer;
  std::string path, name;  // name: the last part of the path
  std::vector<Start> starts;
  Facts facts;
  std::vector<Step> steps;
  std::vector<Evaluation> evaluations;
  std::vector<Save> saves;
  std::vector<RankStart> rank_starts;
  std::vector<PhaseSum> phases;
  std::vector<GemmSum> gemms;
  std::vector<CommSum> comms;
  std::vector<RankMemory> memory;
  std::vector<LedgerRow> ledger;
  std::optional<Config> config;
  std::string config_toml, recipe_toml;
  Ending ending = Ending::kRecorded;
  nlohmann::ordered_json exit_reason;    // null unless recorded
  nlohmann::ordered_json checkpoint;     // state.json of the newest one; null without
  std::vector<std::string> checkpoints;  // names of their folders, oldest first
  int64_t last_write_unix_s = 0;         // of metrics.jsonl
  std::vector<std::string> torn;         // files whose last line is unfinished
  std::vector<std::string> problems;     // "runs/a/metrics.jsonl:12: ..."; the line is left out
  // The last start's; Start{} for a file without one.
  Start last_start() const { return starts.empty() ? Start{} : starts.back(); }
};

// Error (config) when the folder is not that of a run, or when a newer qstep wrote it. Everything
// else that is wrong with a file goes into problems or torn.
Run read_run(const std::string& folder);

}  // namespace qstep::trainer::report
