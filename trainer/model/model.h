// The decoder: embedding, blocks, final norm, head. Explicit forward and backward, no tape.
#pragma once

#include <optional>
#include <vector>

#include "ops/ops.h"
#include "trainer/config/model_config.h"
#include "trainer/model/block.h"
#include "trainer/model/bucket_observer.h"
#include "trainer/model/head.h"
#include "trainer/model/model_precision.h"
#include "trainer/model/weights.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// A micro-batch, and everything that one leaves behind.
struct ModelActivations {
  ops::Tensor tokens, targets;  // [1, N] int32
  ops::Tensor embedding;        // [N, C]
  ops::Tensor delta;            // [N, C], shared by the blocks
  std::vector<BlockActivations> blocks;
  ops::Tensor final_sum, final_norm, final_stats;  // [N/t, C], [N, C], [2, N/t] FP32
  HeadActivations head;
  ops::Tensor losses;      // [1, N] FP32
  ops::Tensor rope_table;  // [positions, D] FP32, or empty
  // Training only:
  ops::Tensor d_stream;  // [N, C]
  BlockScratch scratch;
};

// Same order and same sizes on every call: run it on a measuring arena, then on a placing one.
// Without gradients all blocks share one set of activations. tensor: ranks that share the model.
ModelActivations lay_out_activations(ops::Arena& arena, const ModelConfig& model, int64_t batch,
                                     int64_t seq_len, ops::Dtype dtype, Purpose purpose,
                                     int64_t tensor = 1);

class Model {
 public:
  // precision: the recipe of the linear layers, which outlives the model; null: they compute with
  // the tensors as they are. group: the ranks that share the model, of which this one has `weights`
  // (weight_split.h), and which call forward and forward_backward together; outlives it. Null: this
  // one has all of it.
  Model(ops::Ops& ops, const ModelConfig& config, const ModelWeights<ops::Tensor>& weights,
        const ModelActivations& activations, int64_t batch, int64_t seq_len,
        const ModelPrecision* precision = nullptr, TensorParallel* group = nullptr);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelActivations& activations() const { return a_; }

  // Hears of the buckets in forward and forward_backward; outlives the model. Null: nobody does.
  void observe(BucketObserver* observer) { observer_ = observer; }

  // losses[n] of the micro-batch in tokens and targets.
  void forward(ops::Ops& ops);

  // The same, and grads (+)= gradient of scale * sum_n losses[n].
  void forward_backward(ops::Ops& ops, const ModelWeights<ops::Tensor>& grads, float scale,
                        ops::Accumulate accumulate, Timeline& timer);

  // Generation, batch 1, not shared: runs tokens[0, n) at positions first_position .. and returns
  // the logits [1, V] behind the last one.
  ops::Tensor forward_cached(ops::Ops& ops, int64_t n, std::span<const KvCache> caches,
                             int64_t first_position);

 private:
  Stream forward_blocks(ops::Ops& ops);
  void want_weights(int64_t bucket) {
    if (observer_ != nullptr) observer_->weights_wanted(bucket);
  }
  void gradient_complete(int64_t bucket) {
    if (observer_ != nullptr) observer_->gradient_complete(bucket);
  }

  // The token that row 0 of this rank's embedding and head stands for.
  int64_t first_token() const { return group_.rank() * weights_.wte.rows; }

  ModelConfig config_;
  TensorParallel alone_;
  TensorParallel& group_;
  ModelWeights<ops::Tensor> weights_;
  ModelActivations a_;
  ops::AttentionShape shape_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  Head head_;
  BucketObserver* observer_ = nullptr;
};

}  // namespace qstep::trainer
