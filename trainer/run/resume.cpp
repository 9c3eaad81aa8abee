#include "trainer/run/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "trainer/base/agreement.h"
#include "trainer/config/config_diff.h"
#include "trainer/inference/loaded_model.h"
#include "trainer/model/delayed_state.h"

namespace qstep::trainer {

namespace fs = std::filesystem;
using ops::Error;
using ops::ExitCode;
using ops::Tensor;

namespace {

bool lies_in(const std::string& path, const std::string& folder) {
  const fs::path inside =
      fs::weakly_canonical(path).lexically_relative(fs::weakly_canonical(folder));
  return !inside.empty() && *inside.begin() != "..";
}

std::optional<ResolvedCheckpoint> newest(parallel::Comm& comm, const std::string& root) {
  const auto path = newest_checkpoint(comm, root, warn_passed_over);
  if (!path) return std::nullopt;
  return ResolvedCheckpoint{*path, Verify::kFast};
}

// Whether the run folder holds a later step than the checkpoint that its user names. Error (config)
// where that one lies in the same folder.
bool went_on(const std::string& path, const std::string& folder) {
  const auto own = list_checkpoints(checkpoints_of(folder), Verify::kFast);
  const int64_t step = inspect_checkpoint(path, Verify::kFast).step;
  if (own.empty() || own.back().step <= step) return false;
  if (!lies_in(path, checkpoints_of(folder))) return true;
  // Steps that this folder has already seen would be written twice, and a later resume=auto would
  // not take up the new ones.
  throw Error(ExitCode::kConfig,
              fmt::format("run.resume = \"{}\" is at step {}, but {} already holds step {}; choose "
                          "another run.dir to start over from there, or run.resume=auto to go on",
                          path, step, folder, own.back().step));
}

ResolvedCheckpoint from_path(parallel::Comm& comm, const Config& config) {
  const std::string& given = config.run.resume;
  const ResolvedCheckpoint named = resolve_checkpoint(comm, given);
  const std::string later = text_of_first_rank(
      comm, [&] { return std::string(went_on(named.path, config.run.dir) ? "later" : ""); });
  return later.empty() ? named : newest(comm, checkpoints_of(config.run.dir)).value_or(named);
}

std::optional<ResolvedCheckpoint> find_checkpoint(parallel::Comm& comm, const Config& config,
                                                  const RunDir* dir) {
  if (config.run.resume == "never") {
    on_first_rank(comm, [&] { dir->require_fresh(); });
    return std::nullopt;
  }
  const std::string root = checkpoints_of(config.run.dir);
  remove_stale_temporaries(comm, root);
  if (config.run.resume != "auto") return from_path(comm, config);
  return newest(comm, root);
}

// A recipe by another name is a decision, which resume_note reports; the same name with other
// content is an accident.
void check_recipe(const Config& saved, const Config& now, const std::string& checkpoint) {
  if (saved.precision.recipe != now.precision.recipe) return;
  const std::string changes = changed_recipe(saved, now);
  if (changes.empty()) return;
  throw Error(ExitCode::kConfig,
              fmt::format("{}: the recipe {} is not the one that the checkpoint was trained with; "
                          "restore it (the run folder has it as recipe.toml), or continue under a "
                          "recipe of another name\n{}",
                          checkpoint, now.precision.recipe, changes));
}

}  // namespace

std::unique_ptr<CheckpointReader> checkpoint_to_resume(parallel::Comm& comm, const Config& config,
                                                       const RunDir* dir) {
  const std::optional<ResolvedCheckpoint> found = find_checkpoint(comm, config, dir);
  if (!found) return nullptr;
  return std::make_unique<CheckpointReader>(comm, found->path, found->verify);
}

void check_continues(const Config& config, const data::TokenStore& store,
                     const CheckpointReader& checkpoint) {
  const CheckpointState& state = checkpoint.state();
  check_tokenizer(state, checkpoint.path(), store);
  const Config saved = checkpoint_config(state, checkpoint.path());
  const std::string changes = changed_model(saved, config);
  if (!changes.empty()) {
    throw Error(
        ExitCode::kConfig,
        fmt::format("{}: the checkpoint's model is another one; set [model] as it was saved, "
                    "or choose another run.dir\n{}",
                    checkpoint.path(), changes));
  }
  check_recipe(saved, config, checkpoint.path());
  const std::string& hash = store.info().part(data::Part::kTrain).content_hash;
  if (!state.data_content_hash.empty() && state.data_content_hash != hash &&
      !config.data.allow_change) {
    throw Error(ExitCode::kData,
                fmt::format("{}: its content ({:.12}) is not what the checkpoint {} was trained on "
                            "({:.12}); set data.allow_change = true to continue on other text",
                            store.path(), hash, checkpoint.path(), state.data_content_hash));
  }
}

std::string read_precision_state(const CheckpointReader& checkpoint,
                                 std::span<const NamedTensor> tensors) {
  std::string note;
  for (const NamedTensor& named : tensors) {
    if (!checkpoint.has(named.name)) continue;
    const Tensor& to = named.tensor;
    const int64_t length = checkpoint.cols(named.name);
    if (named.name != kDelayedHistoryName || length == to.cols) {
      checkpoint.read(named);
      continue;
    }
    std::vector<float> saved(static_cast<size_t>(to.rows * length));
    checkpoint.read({named.name, ops::view(std::span(saved), to.rows, length)});
    // The newest step is the last column, and column 0 is none (ops/quantize/delayed_scaling.h).
    const int64_t kept = std::min(length, to.cols) - 1;
    for (int64_t row = 0; row < to.rows; ++row) {
      float* const out = to.as<float>() + row * to.ld;
      std::fill_n(out, to.cols, 0.0f);
      std::copy_n(saved.data() + (row + 1) * length - kept, kept, out + to.cols - kept);
    }
    note = fmt::format("note: the recipe's delayed.history is {} and the checkpoint's was {}: {}\n",
                       to.cols, length,
                       length > to.cols ? "only the newest amaxes count from here on"
                                        : "the steps in between count as without values");
  }
  return note;
}

std::string resume_note(const Config& config, const CheckpointReader& checkpoint) {
  const CheckpointState& state = checkpoint.state();
  const std::string changes = changed_settings(state.config_toml, to_toml(config));
  if (changes.empty()) return {};
  const TrainConfig saved = checkpoint_config(state, checkpoint.path()).train;
  const TrainConfig& now = config.train;
  const bool moved = state.step > 0 && (saved.global_batch != now.global_batch ||
                                        saved.seq_len != now.seq_len || saved.seed != now.seed);
  return fmt::format(
      "note: the configuration is not the one that saved this checkpoint:\n{}{}", changes,
      moved ? "  The position in the data follows from step, global_batch, seq_len and "
              "seed: some samples will be seen again or passed over.\n"
            : "");
}

}  // namespace qstep::trainer
