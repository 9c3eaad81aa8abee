// What plans of cuDNN for attention are called with: the tensors' names and addresses, and what is
// known of the library. Keys and parts: ops/attention/attention_part.h.
#pragma once

#include <limits>
#include <optional>
#include <string>

#include "ops/attention/attention_part.h"
#include "ops/cuda/cudnn_plan.h"
#include "ops/ops.h"

namespace qstep::ops {

// The names of the tensors in memory, and of three numbers.
enum class AttentionTensor : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kLse,
  kDo,
  kDq,
  kDk,
  kDv,
  kDelta,  // FP32 [B H, T], contiguous: scratch of the backward pass
  kScale,  // the numbers
  kInvisible,
  kOne,
};

// The tensors of a call; forward has no d_o, dqkv and delta.
struct AttentionCall {
  AttentionShape shape;
  Direction direction = Direction::kForward;
  Tensor qkv, o, lse, d_o, dqkv;
  void* delta = nullptr;  // of a part: attention_delta_bytes
};

AttentionPlanKey attention_plan_key(const AttentionCall& call);

// Why cuDNN is not asked for a plan: by what the key leaves out; by the key, for a version of the
// library (91900: 9.19.0). Empty where it is.
std::string why_not_cudnn(const AttentionCall& call);
std::string why_not_cudnn(const AttentionPlanKey& key, size_t version);
// The kernel that gives the same bits on every run where that is not among the library's first
// proposals.
std::optional<CudnnEngine> preferred_engine(const AttentionPlanKey& key, int capability,
                                            size_t version);

// The numbers that a graph reads.
struct AttentionNumbers {
  float scale = 0;                                            // 1 / sqrt(D)
  float invisible = -std::numeric_limits<float>::infinity();  // the score of keys after their query
  float one = 1;
};
AttentionNumbers attention_numbers(const AttentionPlanKey& key);

// What a plan for `part` of a call's key is run with, for the sequences from b on and the key/value
// heads from kv on.
CudnnArguments attention_arguments(const AttentionCall& call, const AttentionPlanKey& part,
                                   const AttentionNumbers& numbers, int64_t b, int64_t kv);

}  // namespace qstep::ops
