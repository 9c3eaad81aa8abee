// A checkpoint's model ready to be run: configuration, tokenizer, and weights in the compute type.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "data/token_store.h"
#include "data/tokenizer.h"
#include "ops/ops.h"
#include "trainer/backend/memory_rows.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/model/model_precision.h"
#include "trainer/model/parameters.h"
#include "trainer/step/out_of_memory.h"

namespace qstep::trainer {

// A checkpoint, and what of it its reader still has to verify.
struct ResolvedCheckpoint {
  std::string path;
  Verify verify = Verify::kFull;
};

// Resolves what a user names as a checkpoint: a checkpoint folder, a run folder, or its
// checkpoints/ folder (the newest one that verifies). Error (checkpoint) when there is none.
ResolvedCheckpoint resolve_checkpoint(const std::string& path);
// As the first rank sees it, verified by all.
ResolvedCheckpoint resolve_checkpoint(parallel::Comm& comm, const std::string& path);

// Says on stderr that a damaged checkpoint is passed over, and why.
void warn_passed_over(const CheckpointInfo& damaged);

// Error (data) when the store's tokens are not those of the checkpoint's tokenizer.
void check_tokenizer(const CheckpointState& state, const std::string& path,
                     const data::TokenStore& store);

// Configuration of the run that saved it.
Config checkpoint_config(const CheckpointState& state, const std::string& path);

// The forward passes that a model is loaded for. Those of micro-batches, all of one size, multiply
// codes where the backend does, as the run's own; those of any number of tokens, as generation has
// them, decode their operands.
enum class Passes : uint8_t { kMicroBatches, kAnySize };

// The weights and scales that forward passes need, without optimizer state.
class LoadedModel {
 public:
  // `path` as resolve_checkpoint takes it; `recipe` a name or path, empty for the run's own;
  // micro_batch: sequences of a pass, 0 for the run's own. `ops` outlives this.
  LoadedModel(ops::Ops& ops, const std::string& path, const std::string& recipe,
              Passes passes = Passes::kAnySize, int64_t micro_batch = 0);

  const std::string& path() const { return path_; }
  const CheckpointState& state() const { return state_; }
  const Config& config() const { return config_; }
  const ModelWeights<ops::Tensor>& weights() const { return group_.views; }
  // Bytes of the weights, and what its memory is for: what is said where memory runs out.
  const std::vector<MemoryRow>& memory() const { return memory_; }
  MemoryUse memory_use() const {
    return passes_ == Passes::kMicroBatches ? MemoryUse::kEvaluation : MemoryUse::kGeneration;
  }
  // What its forward passes compute in, for reports: "nvfp4 emulated", "bf16 native".
  bool emulated() const;
  std::string precision_text() const;
  // For forward passes of up to n_tokens as the run's own evaluations do them (precision.eval), or
  // in the recipe that was asked for.
  PrecisionTensors lay_out_precision(ops::Arena& arena, int64_t n_tokens) const;
  std::unique_ptr<ModelPrecision> precision(PrecisionTensors tensors) const;
  // Error (config) when the checkpoint has none (imported models).
  std::unique_ptr<data::Tokenizer> tokenizer() const;

 private:
  void load(const CheckpointReader& reader);

  ops::Ops& ops_;
  std::string path_;
  Passes passes_;
  CheckpointState state_;
  Config config_;
  std::vector<MemoryRow> memory_;
  ops::Buffer buffer_;
  ParameterGroup group_;
  PrecisionPlan plan_;
  NativeProducts native_;
  std::map<std::string, std::vector<float>> delayed_state_;  // by name in the checkpoint
};

}  // namespace qstep::trainer
