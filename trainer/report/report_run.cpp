#include "trainer/report/report_run.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "ops/error.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/report/report_rows.h"
#include "trainer/run/metrics.h"
#include "trainer/run/run_dir.h"

namespace qstep::trainer::report {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using ops::Error;
using ops::ExitCode;

namespace {

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Null for a file that is not there or not JSON; the latter is a problem.
Json json_of(const std::string& path, std::vector<std::string>& problems) {
  if (!fs::exists(path)) return nullptr;
  Json json = Json::parse(text_of(path), nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  problems.push_back(path + ": not a JSON object");
  return nullptr;
}

void check_schema(const Row& row, const std::string& path) {
  int64_t schema = kMetricsSchema;
  row.get("schema", schema);
  if (schema <= kMetricsSchema) return;
  throw Error(ExitCode::kConfig,
              fmt::format("{}: schema {}, this qstep reads up to {}; use the qstep that wrote it",
                          path, schema, kMetricsSchema));
}

// ---- metrics.jsonl -----------------------------------------------------------------------------

Start start_of(const Row& row) {
  Start s;
  row.get("step", s.step);
  row.get("time_unix_s", s.time_unix_s);
  row.get("config_hash", s.config_hash);
  row.get("recipe", s.recipe);
  row.get("emulated", s.emulated);
  row.get("ranks", s.ranks);
  row.get("tensor", s.tensor);
  row.get("n_parameters", s.n_parameters);
  row.get("flops_per_token_causal", s.flops_per_token_causal);
  s.peak_known = row.has("peak_machine");
  row.get("peak_machine", s.peak_machine);
  row.get("peak_source", s.peak_source);
  row.get("peak_flops_per_s", s.peak_flops_per_s);
  row.get("peak_memory_bytes_per_s", s.peak_memory_bytes_per_s);
  return s;
}

Facts facts_of(const Row& row) {
  Facts f{.recorded = true, .build = {}, .machine = {}, .libraries = {}, .environment = {}};
  row.get("build", f.build);
  row.get("machine", f.machine);
  row.get("libraries", f.libraries);
  row.get("environment", f.environment);
  return f;
}

Step step_of(const Row& row) {
  Step s;
  row.get("step", s.step);
  row.get("loss", s.loss);
  row.get("lr", s.lr);
  row.get("grad_norm", s.grad_norm);
  row.get("step_ms", s.step_ms);
  row.get("tokens", s.tokens);
  row.get("tokens_total", s.tokens_total);
  row.get("peak_rss_bytes", s.peak_rss_bytes);
  row.get("skipped", s.skipped);
  row.get("non_finite_input", s.non_finite_input);
  row.get("phases_ms", s.phases_ms);
  row.get("breakdown_ms", s.breakdown_ms);
  row.get("comm_busy_ms", s.comm_busy_ms);
  row.get("comm_exposed_ms", s.comm_exposed_ms);
  row.get("comm_bytes", s.comm_bytes);
  row.get("tags", s.tags);
  if (!(s.step_ms > 0)) throw std::invalid_argument("step_ms: expected a time above 0");
  return s;
}

Evaluation evaluation_of(const Row& row) {
  Evaluation e;
  row.get("step", e.step);
  row.get("loss", e.loss);
  row.get("bits_per_byte", e.bits_per_byte);
  row.get("tokens", e.tokens);
  row.get("eval_ms", e.eval_ms);
  row.get("precision", e.precision);
  return e;
}

Save save_of(const Row& row) {
  Save s;
  row.get("step", s.step);
  row.get("save_ms", s.save_ms);
  return s;
}

// ---- metrics.rankNNNNN.jsonl -------------------------------------------------------------------

RankStart rank_start_of(const Row& row) {
  RankStart s;
  row.get("step", s.step);
  row.get("rank", s.rank);
  row.get("host", s.host);
  row.get("tensor_rank", s.tensor_rank);
  row.get("data_rank", s.data_rank);
  row.get("threads", s.threads);
  row.get("note_ns", s.note_ns);
  return s;
}

template <class Sum>
Sum window_of(const Row& row) {
  Sum sum;
  row.get("step", sum.step);
  row.get("steps", sum.steps);
  row.get("rank", sum.rank);
  return sum;
}

PhaseSum phase_of(const Row& row) {
  auto sum = window_of<PhaseSum>(row);
  row.get("phase", sum.phase);
  row.get("layer", sum.layer);
  row.get("pass", sum.pass);
  row.get("ms", sum.ms);
  row.get("calls", sum.calls);
  return sum;
}

GemmSum gemm_of(const Row& row) {
  auto sum = window_of<GemmSum>(row);
  row.get("layer", sum.layer);
  row.get("op", sum.op);
  row.get("pass", sum.pass);
  row.get("m", sum.m);
  row.get("n", sum.n);
  row.get("k", sum.k);
  row.get("format_a", sum.format_a);
  row.get("format_b", sum.format_b);
  row.get("runs_as", sum.runs_as);
  row.get("emulated", sum.emulated);
  row.get("calls", sum.calls);
  row.get("ms", sum.ms);
  return sum;
}

CommSum comm_of(const Row& row) {
  auto sum = window_of<CommSum>(row);
  row.get("group", sum.group);
  row.get("op", sum.op);
  row.get("calls", sum.calls);
  row.get("bytes", sum.bytes);
  row.get("total_ms", sum.total_ms);
  row.get("exposed_ms", sum.exposed_ms);
  return sum;
}

RankMemory memory_of(const Row& row) {
  RankMemory memory;
  row.get("step", memory.step);
  row.get("rank", memory.rank);
  row.get("owner", memory.owner);
  row.get("bytes", memory.bytes);
  return memory;
}

// ---- files -------------------------------------------------------------------------------------

void keep(Run& run, const std::string& path, const RowProblems& found) {
  run.problems.insert(run.problems.end(), found.problems.begin(), found.problems.end());
  if (found.torn) run.torn.push_back(path);
}

void read_metrics(Run& run) {
  const std::string path = run.path + "/metrics.jsonl";
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw Error(
        ExitCode::kConfig,
        fmt::format("{}: there is no metrics.jsonl: name the folder of a run (run.dir)", run.path));
  }
  run.last_write_unix_s = status.st_mtime;
  keep(run, path, for_each_row(path, [&](const std::string& type, const Row& row) {
         if (type == "run") {
           check_schema(row, path);
           run.starts.push_back(start_of(row));
         } else if (type == "facts") {
           run.facts = facts_of(row);
         } else if (type == "step") {
           run.steps.push_back(step_of(row));
         } else if (type == "eval") {
           run.evaluations.push_back(evaluation_of(row));
         } else if (type == "checkpoint") {
           run.saves.push_back(save_of(row));
         }
       }));
}

void read_ranks(Run& run) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(run.path)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("metrics.rank") && name.ends_with(".jsonl")) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    keep(run, path, for_each_row(path, [&](const std::string& type, const Row& row) {
           if (type == "rank_run") {
             check_schema(row, path);
             run.rank_starts.push_back(rank_start_of(row));
           } else if (type == "phase") {
             run.phases.push_back(phase_of(row));
           } else if (type == "gemm") {
             run.gemms.push_back(gemm_of(row));
           } else if (type == "comm") {
             run.comms.push_back(comm_of(row));
           } else if (type == "memory") {
             run.memory.push_back(memory_of(row));
           }
         }));
  }
}

void read_counts(Run& run) {
  const std::string path = ledger_jsonl(run.path);
  if (!fs::exists(path)) return;
  try {
    run.ledger = read_ledger(path);
  } catch (const Error& error) {
    run.problems.emplace_back(error.what());
  }
}

void read_config(Run& run) {
  run.config_toml = text_of(run.path + "/config.toml");
  run.recipe_toml = text_of(run.path + "/recipe.toml");
  if (run.config_toml.empty()) return;
  try {
    run.config =
        parse_config(run.config_toml, run.path + "/config.toml", {}, run.recipe_toml).config;
  } catch (const Error& error) {
    run.problems.emplace_back(error.what());
  }
}

void read_checkpoints(Run& run) {
  const std::string root = checkpoints_of(run.path);
  if (!fs::is_directory(root)) return;
  std::vector<std::pair<int64_t, std::string>> found;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename();
    const auto folder = parse_folder_name(name);
    if (folder && folder->kind == FolderKind::kCheckpoint) found.emplace_back(folder->step, name);
  }
  std::sort(found.begin(), found.end());
  for (const auto& [step, name] : found) run.checkpoints.push_back(name);
  if (found.empty()) return;
  run.checkpoint = json_of(root + "/" + found.back().second + "/state.json", run.problems);
}

// Whether a process holds the lock of the folder (run_dir.h).
bool is_running(const std::string& folder) {
  const int fd = ::open((folder + "/.lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);  // and gives the lock back
  return held;
}

void read_ending(Run& run) {
  run.exit_reason = json_of(exit_reason_of(run.path), run.problems);
  if (!run.exit_reason.is_null()) return;
  run.ending = is_running(run.path) ? Ending::kRunning : Ending::kKilled;
}

}  // namespace

Run read_run(const std::string& folder) {
  Run run;
  run.path = folder;
  while (run.path.size() > 1 && run.path.ends_with('/')) run.path.pop_back();
  run.name = fs::absolute(run.path).lexically_normal().filename();
  read_metrics(run);
  read_ranks(run);
  read_counts(run);
  read_config(run);
  read_checkpoints(run);
  read_ending(run);
  return run;
}

}  // namespace qstep::trainer::report
