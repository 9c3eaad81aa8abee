#include "trainer/inference/loaded_model.h"

#include <fmt/ranges.h>

#include <filesystem>

#include "trainer/backend/emulation.h"
#include "trainer/base/agreement.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/config/recipe_check.h"

namespace qstep::trainer {

using ops::Dtype;
using ops::Error;
using ops::ExitCode;
using ops::Tensor;

ResolvedCheckpoint resolve_checkpoint(const std::string& path) {
  return resolve_checkpoint(*parallel::make_single(), path);
}

ResolvedCheckpoint resolve_checkpoint(parallel::Comm& comm, const std::string& path) {
  const std::string root = text_of_first_rank(comm, [&] {
    return std::filesystem::exists(path + "/" + kManifestFile) ? "" : checkpoint_root(path);
  });
  if (root.empty()) return {path, Verify::kFull};
  const auto newest = newest_checkpoint(comm, root, warn_passed_over);
  if (newest) return {*newest, Verify::kFast};
  throw AgreedError(
      ExitCode::kCheckpoint,
      fmt::format("{}: no checkpoint here; expected a checkpoint folder (with {}) or a run "
                  "folder (with checkpoints/)",
                  path, kManifestFile));
}

void warn_passed_over(const CheckpointInfo& damaged) {
  fmt::print(stderr, "warning: passing over {}: {}\n", damaged.path, damaged.problem);
}

void check_tokenizer(const CheckpointState& state, const std::string& path,
                     const data::TokenStore& store) {
  const data::StoreInfo& info = store.info();
  if (state.tokenizer_sha256 == info.tokenizer_sha256) return;
  throw Error(
      ExitCode::kData,
      fmt::format("{}: its tokenizer ({} {:.12}) is not the one of the checkpoint {} ({} {:.12}); "
                  "prepare the corpus with that tokenizer, or use the corpus of that run",
                  store.path(), info.tokenizer, info.tokenizer_sha256, path, state.tokenizer,
                  state.tokenizer_sha256));
}

Config checkpoint_config(const CheckpointState& state, const std::string& path) {
  Config config =
      parse_config(state.config_toml, path + "/state.json", {}, state.recipe_toml).config;
  config.model.vocab_size = state.vocab_size;
  return config;
}

LoadedModel::LoadedModel(ops::Ops& ops, const std::string& path, const std::string& recipe,
                         Passes passes, int64_t micro_batch)
    : ops_(ops), passes_(passes) {
  const ResolvedCheckpoint found = resolve_checkpoint(path);
  path_ = found.path;
  const CheckpointReader reader(found.path, found.verify);
  state_ = reader.state();
  config_ = checkpoint_config(state_, path_);
  if (micro_batch > 0) config_.train.micro_batch = micro_batch;
  if (!recipe.empty()) {
    set_recipe(config_, recipe);
    config_.precision.eval = EvalPrecision::kRecipe;
    const std::vector<std::string> problems = recipe_problems(config_, Purpose::kEvaluation);
    if (!problems.empty()) {
      throw Error(ExitCode::kConfig, fmt::format("{} cannot compute in the recipe {}\n  {}", path_,
                                                 recipe, fmt::join(problems, "\n  ")));
    }
  }
  // On whatever device it was trained: hardware rounding is for the speed of training.
  config_.precision.stochastic_rounding = precision::StochasticRounder::kPortable;
  if (config_.precision.eval == EvalPrecision::kRecipe) plan_ = plan_precision(config_);

  if (passes == Passes::kMicroBatches) native_ = NativeProducts(ops, config_.compute_dtype());
  load(reader);
  if (plan_.has_delayed()) {
    if (!reader.has(kDelayedScaleName)) {
      throw Error(
          ExitCode::kConfig,
          fmt::format("{}: recipe {} has delayed scaling, and the checkpoint holds no scales "
                      "of earlier steps; use --precision bf16, or a recipe without delayed "
                      "scaling such as fp8-current",
                      path_, config_.precision.recipe));
    }
    for (const std::string& name : {kDelayedScaleName, kDelayedCodeName}) {
      std::vector<float>& values = delayed_state_[name];
      values.resize(static_cast<size_t>(n_modules(config_.model) * kTensorsPerLinear));
      reader.read({name, ops::view(std::span(values))});
    }
  }
}

// The weights, each of them over FP32 in memory of the backend that goes again.
void LoadedModel::load(const CheckpointReader& reader) {
  const Dtype dtype = config_.compute_dtype();
  const ShardPlan plan = plan_shards(config_.model);
  ops::Arena measure;
  ParameterGroup measured = lay_out_group(measure, config_.model, plan, "weights", dtype);
  memory_ = memory_rows(measure);
  int64_t largest = 0;
  for (const NamedTensor& named : named_tensors(config_.model, measured, "master")) {
    largest = std::max(largest, named.tensor.size());
  }
  const int64_t staging_bytes = largest * size_bytes(Dtype::kF32);
  ops::Buffer staging;
  naming_owners(
      [&] {
        buffer_ = ops_.allocate(measure.peak_bytes());
        staging = ops_.allocate(staging_bytes);
      },
      [&] {
        const MemoryRow passing{"weights on their way", staging_bytes};
        return joined_rows(memory_, {&passing, 1});
      },
      memory_use());
  ops::Arena place(buffer_);
  group_ = lay_out_group(place, config_.model, plan, "weights", dtype);

  std::vector<float> host(static_cast<size_t>(largest));
  for (const NamedTensor& named : named_tensors(config_.model, group_, "master")) {
    const Tensor& weight = named.tensor;
    reader.read({named.name, ops::matrix(host.data(), Dtype::kF32, weight.rows, weight.cols)});
    const Tensor master = ops::matrix(staging.data(), Dtype::kF32, weight.rows, weight.cols);
    ops_.upload(master, host.data());
    ops_.cast(weight, master);
  }
}

bool LoadedModel::emulated() const {
  const int64_t n_tokens = config_.train.micro_batch * config_.train.seq_len;
  return emulated_forward(config_, plan_, n_tokens, ops_, native_);
}

std::string LoadedModel::precision_text() const {
  return trainer::precision_text(config_.precision, plan_, emulated());
}

PrecisionTensors LoadedModel::lay_out_precision(ops::Arena& arena, int64_t n_tokens) const {
  return PrecisionTensors::lay_out(arena, plan_, config_.model, n_tokens, Purpose::kEvaluation,
                                   native_);
}

std::unique_ptr<ModelPrecision> LoadedModel::precision(PrecisionTensors tensors) const {
  auto precision =
      std::make_unique<ModelPrecision>(ops_, plan_, std::move(tensors), config_.train.seed);
  for (const NamedTensor& named : precision->named_tensors()) {
    ops_.upload(named.tensor, delayed_state_.at(named.name).data());
  }
  precision->restored(ops_, state_.step);
  precision->begin_evaluation(state_.step, EvalPrecision::kRecipe);
  return precision;
}

std::unique_ptr<data::Tokenizer> LoadedModel::tokenizer() const {
  if (state_.tokenizer_model.empty() && state_.tokenizer != "bytes") {
    throw Error(ExitCode::kConfig,
                fmt::format("{}: the checkpoint carries no tokenizer (\"{}\"); give token ids with "
                            "--prompt-tokens instead of --prompt",
                            path_, state_.tokenizer));
  }
  return data::make_tokenizer(state_.tokenizer, state_.tokenizer_model);
}

}  // namespace qstep::trainer
