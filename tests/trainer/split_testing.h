// What the tests of split weights share: small models that tensor groups of several sizes can share
// out, and the place of every element, found one feature at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "trainer/model/parameters.h"

namespace qstep::trainer::testing {

struct SplitCase {
  std::string name;
  ModelConfig model;
};
inline void PrintTo(const SplitCase& test, std::ostream* out) { *out << test.name; }

// All weights that a model can have, cut and not. Matrices are a few units large, so that data
// parallelism cuts them again, inside sections and inside rows.
inline std::vector<SplitCase> split_cases() {
  ModelConfig llama;  // SwiGLU, RMSNorm, untied head
  llama.vocab_size = 300;
  llama.n_layers = 2;
  llama.width = 52;
  llama.n_heads = 24;
  llama.n_kv_heads = 12;
  llama.head_dim = 6;
  llama.ffn_width = 132;
  llama.max_seq_len = 11;

  ModelConfig gpt2 = llama;  // biases, learned positions, one section in `up`
  gpt2.norm = NormKind::kLayer;
  gpt2.position = PositionKind::kLearned;
  gpt2.activation = ops::Activation::kGelu;
  gpt2.bias = true;
  gpt2.tied_head = true;
  gpt2.n_kv_heads = gpt2.n_heads;

  ModelConfig mixed = llama;  // not for groups of 3
  mixed.vocab_size = 70;
  mixed.n_heads = 8;
  mixed.n_kv_heads = 4;
  mixed.norm = NormKind::kLayer;
  mixed.bias = true;
  mixed.qk_norm = true;
  mixed.tied_head = true;
  return {{"Llama", llama}, {"Gpt2", gpt2}, {"QkNormBiasSwigluTied", mixed}};
}

// Those of 1 to 4 that divide what is cut.
inline std::vector<int> tensor_sizes(const ModelConfig& model) {
  std::vector<int> sizes;
  for (const int t : {1, 2, 3, 4}) {
    if (model.padded_vocab() % t == 0 && model.n_kv_heads % t == 0 && model.ffn_width % t == 0) {
      sizes.push_back(t);
    }
  }
  return sizes;
}

struct Element {
  int64_t row = 0, col = 0;
};

// Where element `local` of a rank's part lies in the whole weight.
inline Element whole_element(const WeightSpec& spec, const TensorPlace& place, Element local) {
  if (spec.split == TensorSplit::kNone) return local;
  int64_t& along = spec.split == TensorSplit::kRows ? local.row : local.col;
  int64_t section_first = 0;
  for (const int64_t section : spec.sections) {
    const int64_t share = section / place.size;
    if (along < share) {
      along += section_first + place.rank * share;
      return local;
    }
    along -= share;
    section_first += section;
  }
  return {-1, -1};
}

// Calls f(weight, element of the whole weight, element of the flat arrays) for all that a rank has
// of the weights.
template <class F>
void for_each_element(const ShardPlan& plan, F&& f) {
  for (const PlacedWeight& weight : plan.weights) {
    for (int64_t i = 0; i < weight.size(); ++i) {
      const Element local = {i / weight.local.cols, i % weight.local.cols};
      f(weight, whole_element(weight.spec, plan.tensor, local), weight.first + i);
    }
  }
}

// A rank of n_data data-parallel ones, in a tensor group.
struct RankOfMany {
  OptimizerState state = OptimizerState::kSharded;
  int n_data = 1, data = 0;
  TensorPlace tensor;

  // Ranks of a tensor group are neighbours.
  int world_rank() const { return data * tensor.size + tensor.rank; }
};

inline std::vector<RankOfMany> all_ranks(OptimizerState state, int n_data, int n_tensor) {
  std::vector<RankOfMany> ranks;
  for (int data = 0; data < n_data; ++data) {
    for (int rank = 0; rank < n_tensor; ++rank) {
      ranks.push_back({state, n_data, data, {n_tensor, rank}});
    }
  }
  return ranks;
}

// The parameters of one rank, in memory of their own.
class RankParameters {
 public:
  RankParameters(const ModelConfig& model, ops::Dtype dtype, const RankOfMany& rank)
      : plan(plan_shards(model, rank.state, rank.n_data, rank.data, rank.tensor)),
        ops(ops::make_cpu_ops()) {
    const auto lay_out = [&](ops::Arena& arena) {
      values = lay_out_parameters(arena, model, plan, dtype);
      scratch = lay_out_group(arena, model, plan, "gradients", ops::Dtype::kF32);
    };
    ops::Arena measure;
    lay_out(measure);
    buffer_ = ops->allocate(measure.peak_bytes());
    ops::Arena place(buffer_);
    lay_out(place);
  }

  ShardPlan plan;
  std::unique_ptr<ops::Ops> ops;
  Parameters values;
  ParameterGroup scratch;

  template <class F>
  void for_each_element(F&& f) const {
    testing::for_each_element(plan, std::forward<F>(f));
  }

  // Where an element of the flat arrays lies in those of owned ones; -1: not owned.
  int64_t owned_place(const PlacedWeight& weight, int64_t element) const {
    const OwnedRun& run = plan.owned[static_cast<size_t>(weight.spec.bucket)];
    const bool owned = element >= run.first && element < run.first + run.size;
    return owned ? run.offset + element - run.first : -1;
  }

 private:
  ops::Buffer buffer_;
};

}  // namespace qstep::trainer::testing
