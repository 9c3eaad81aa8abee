#include "ops/attention/attention_plan.h"

#include <fmt/format.h>

#include <cmath>

#include "ops/gemm/gemm_plan_key.h"

namespace qstep::ops {

namespace {
constexpr uint32_t kAlignment = 16;  // bytes
constexpr const char* kUnaligned = "its rows do not start at multiples of 16 bytes";
}  // namespace

std::string why_not_cudnn(const AttentionCall& call) {
  if (call.qkv.dtype != Dtype::kBf16) {
    return fmt::format("its tensors are {}, not bf16", name(call.qkv.dtype));
  }
  for (const Tensor& x : {call.qkv, call.o, call.lse, call.d_o, call.dqkv}) {
    if (alignment(x.data) < kAlignment) return kUnaligned;
  }
  return "";
}

std::string why_not_cudnn(const AttentionPlanKey& key, size_t version) {
  // The first whose backward pass is deterministic on every GPU and right for T that is no
  // multiple of 128.
  constexpr size_t kOldest = 91800;
  if (version < kOldest) {
    return fmt::format("cuDNN {}.{} is older than 9.18", version / 10000, version / 100 % 100);
  }
  constexpr int64_t kElements = kAlignment / 2;
  if (key.head_dim % kElements != 0) {
    return fmt::format("head size {} is no multiple of {}", key.head_dim, kElements);
  }
  for (const int64_t ld : {key.qkv_ld, key.o_ld, key.d_o_ld, key.dqkv_ld}) {
    if (ld % kElements != 0) return kUnaligned;
  }
  if (key.direction == Direction::kBackward && key.seq_len == 1) {
    return "cuDNN has no backward pass for sequences of one token";
  }
  return "";
}

// Numbers from cudnn-frontend, CompositeSDPABackwardNode::override_heuristics_query.
std::optional<CudnnEngine> preferred_engine(const AttentionPlanKey& key, int capability,
                                            size_t version) {
  constexpr size_t kNewKnobs = 92300;
  if (key.direction == Direction::kForward || (capability != 100 && capability != 103)) return {};
  if (version < kNewKnobs) {
    return CudnnEngine{5, {{CUDNN_KNOB_TYPE_KERNEL_CFG, 31}, {CUDNN_KNOB_TYPE_STAGES, 2}}};
  }
  return CudnnEngine{5,
                     {{CUDNN_KNOB_TYPE_TILE_M, 3},
                      {CUDNN_KNOB_TYPE_TILE_N, 2},
                      {CUDNN_KNOB_TYPE_KERNEL_CFG, 2},
                      {CUDNN_KNOB_TYPE_STREAM_K, 0},
                      {CUDNN_KNOB_TYPE_TILE_CGA_M, 0},
                      {CUDNN_KNOB_TYPE_STAGES, 2}}};
}

AttentionNumbers attention_numbers(const AttentionPlanKey& key) {
  return {.scale = 1.0f / std::sqrt(static_cast<float>(key.head_dim))};
}

AttentionPlanKey attention_plan_key(const AttentionCall& call) {
  AttentionPlanKey key = attention_plan_key(call.shape, call.direction);
  key.qkv_ld = call.qkv.ld;
  key.o_ld = call.o.ld;
  key.lse_ld = call.lse.ld;
  key.d_o_ld = call.d_o.ld;
  key.dqkv_ld = call.dqkv.ld;
  return key;
}

CudnnArguments attention_arguments(const AttentionCall& call, const AttentionPlanKey& part,
                                   const AttentionNumbers& numbers, int64_t b, int64_t kv) {
  const AttentionShape& s = call.shape;
  const int64_t h = kv * (s.n_heads / s.n_kv_heads);
  CudnnArguments arguments;
  const auto put = [&](AttentionTensor name, const void* data) {
    arguments.names.push_back(static_cast<int64_t>(name));
    arguments.memory.push_back(const_cast<void*>(data));
  };
  const auto put_heads = [&](AttentionTensor name, const Tensor& rows, int64_t first_column,
                             int64_t first, int64_t n) {
    put(name, rows.row_range(b * s.seq_len, part.batch * s.seq_len)
                  .col_range(first_column + first * s.head_dim, n * s.head_dim)
                  .data);
  };
  const auto put_qkv = [&](const Tensor& rows, AttentionTensor q, AttentionTensor k,
                           AttentionTensor v) {
    put_heads(q, rows, 0, h, part.n_heads);
    put_heads(k, rows, s.q_width(), kv, part.n_kv_heads);
    put_heads(v, rows, s.q_width() + s.kv_width(), kv, part.n_kv_heads);
  };
  put_qkv(call.qkv, AttentionTensor::kQ, AttentionTensor::kK, AttentionTensor::kV);
  put_heads(AttentionTensor::kO, call.o, 0, h, part.n_heads);
  put(AttentionTensor::kLse, call.lse.row_range(b * s.n_heads + h, part.batch * part.n_heads).data);
  put(AttentionTensor::kScale, &numbers.scale);
  put(AttentionTensor::kInvisible, &numbers.invisible);
  if (call.direction == Direction::kBackward) {
    put_qkv(call.dqkv, AttentionTensor::kDq, AttentionTensor::kDk, AttentionTensor::kDv);
    put_heads(AttentionTensor::kDo, call.d_o, 0, h, part.n_heads);
    put(AttentionTensor::kDelta, call.delta);
    put(AttentionTensor::kOne, &numbers.one);
  }
  return arguments;
}

}  // namespace qstep::ops
