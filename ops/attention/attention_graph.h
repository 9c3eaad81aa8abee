// Attention (ops/attention/attention.h) as two graphs that cuDNN recognizes as fused attention:
// BF16 tensors, FP32 sums. The graphs follow the formulas; which node comes where is what the
// library's pattern wants (NVIDIA's cudnn-frontend, node/scaled_dot_product_flash_attention.h, the
// composite nodes).
//
// Graph is CudnnGraph; tests have one that computes on the host.
#pragma once

#include "ops/attention/attention_plan.h"
#include "ops/cuda/cudnn_graph.h"

namespace qstep::ops {

template <class Graph>
class AttentionGraph {
 public:
  AttentionGraph(Graph& graph, const AttentionPlanKey& key) : graph_(graph), key_(key) {}

  // From q, k, v: o, lse.
  void forward() {
    const Value q = memory(AttentionTensor::kQ, query_heads(key_.qkv_ld));
    const Value k = memory(AttentionTensor::kK, transposed(kv_heads(key_.qkv_ld)));
    const Value v = memory(AttentionTensor::kV, kv_heads(key_.qkv_ld));
    const Value o = memory(AttentionTensor::kO, query_heads(key_.o_ld));
    const Value lse = memory(AttentionTensor::kLse, rows(key_.lse_ld), kF32);
    const Value scale = number(AttentionTensor::kScale);

    const Value s = causal(mul(graph_.matmul(q, k, scores(), kF32), scale));
    const Value highest = graph_.reduce(CUDNN_REDUCE_TENSOR_MAX, s, rows(key_.seq_len));
    const Value e = exp(sub(s, highest));
    const Value sum = graph_.reduce(CUDNN_REDUCE_TENSOR_ADD, e, rows(key_.seq_len));
    const Value log_sum = graph_.pointwise(CUDNN_POINTWISE_LOG, sum);
    graph_.pointwise(CUDNN_POINTWISE_ADD, highest, log_sum, lse);
    const Value p =
        graph_.pointwise(CUDNN_POINTWISE_DIV, e, sum, graph_.temporary(scores(), kBf16));
    graph_.matmul_into(p, v, o);
  }

  // From q, k, v, o, lse, do: dq, dk, dv, delta. dq is one sum over all keys, for which the kernels
  // of some GPUs keep all of ds in scratch: no sum has an order that depends on the threads.
  void backward() {
    const Value q = memory(AttentionTensor::kQ, query_heads(key_.qkv_ld));
    const Value k = memory(AttentionTensor::kK, transposed(kv_heads(key_.qkv_ld)));
    const Value v = memory(AttentionTensor::kV, transposed(kv_heads(key_.qkv_ld)));
    const Value o = memory(AttentionTensor::kO, query_heads(key_.o_ld));
    const Value lse = memory(AttentionTensor::kLse, rows(key_.lse_ld), kF32);
    const Value d_o = memory(AttentionTensor::kDo, query_heads(key_.d_o_ld));
    const Value delta = memory(AttentionTensor::kDelta, rows(key_.seq_len), kF32);
    const Value dq = memory(AttentionTensor::kDq, query_heads(key_.dqkv_ld));
    const Value scale = number(AttentionTensor::kScale);

    const Value sums = graph_.reduce(CUDNN_REDUCE_TENSOR_ADD, mul(d_o, o), rows(key_.seq_len));
    // The pattern has a factor here, for dropout.
    graph_.pointwise(CUDNN_POINTWISE_MUL, sums, number(AttentionTensor::kOne), delta);

    const Value s = mul(graph_.matmul(q, k, scores(), kF32), scale);
    const Value p = exp(causal(sub(s, lse)));
    sum_over_queries(p, d_o, AttentionTensor::kDv);

    const Value dp = graph_.matmul(d_o, v, scores(), kF32);
    const Value ds = mul(mul(sub(dp, delta), p), scale);
    sum_over_queries(ds, q, AttentionTensor::kDk);

    // The keys as they lie in memory; FP32 in name, as the pattern's intermediates are.
    const Value keys = graph_.reshape(k, kv_heads(key_.qkv_ld), kF32);
    graph_.matmul_into(ds, keys, dq);
  }

 private:
  using Value = typename Graph::Value;
  static constexpr auto kBf16 = CUDNN_DATA_BFLOAT16;
  static constexpr auto kF32 = CUDNN_DATA_FLOAT;

  // [B, n, T, D] in rows of interleaved heads.
  CudnnLayout heads(int64_t n, int64_t ld) const {
    return {{key_.batch, n, key_.seq_len, key_.head_dim},
            {key_.seq_len * ld, key_.head_dim, ld, 1}};
  }
  CudnnLayout query_heads(int64_t ld) const { return heads(key_.n_heads, ld); }
  CudnnLayout kv_heads(int64_t ld) const { return heads(key_.n_kv_heads, ld); }
  // [B, H, T, 1]
  CudnnLayout rows(int64_t ld) const {
    return {{key_.batch, key_.n_heads, key_.seq_len, 1}, {key_.n_heads * ld, ld, 1, 1}};
  }
  // [B, H, T, T]
  CudnnLayout scores() const {
    return packed({key_.batch, key_.n_heads, key_.seq_len, key_.seq_len});
  }

  Value memory(AttentionTensor name, const CudnnLayout& layout, cudnnDataType_t type = kBf16) {
    return graph_.in_memory(static_cast<int64_t>(name), layout, type);
  }
  Value number(AttentionTensor name) { return graph_.number(static_cast<int64_t>(name)); }
  Value mul(Value a, Value b) { return graph_.pointwise(CUDNN_POINTWISE_MUL, a, b); }
  Value sub(Value a, Value b) { return graph_.pointwise(CUDNN_POINTWISE_SUB, a, b); }
  Value exp(Value a) { return graph_.pointwise(CUDNN_POINTWISE_EXP, a); }

  // x[i,j] where key j <= query i, -infinity elsewhere.
  Value causal(Value x) {
    const Value query = graph_.index(2, x), key = graph_.index(3, x);
    return graph_.select(graph_.at_least(query, key), x, number(AttentionTensor::kInvisible));
  }

  // y[j] = sum_i w[i,j] x[i], w in BF16, and over the query heads that share a key/value head.
  void sum_over_queries(Value w, Value x, AttentionTensor name) {
    const Value turned = graph_.reshape(w, transposed(scores()), kBf16);
    const Value y = memory(name, kv_heads(key_.dqkv_ld));
    if (key_.n_heads == key_.n_kv_heads) return graph_.matmul_into(turned, x, y);
    const CudnnLayout of_each = packed({key_.batch, key_.n_heads, key_.seq_len, key_.head_dim});
    graph_.reduce_into(CUDNN_REDUCE_TENSOR_ADD, graph_.matmul(turned, x, of_each, kBf16), y);
  }

  Graph& graph_;
  AttentionPlanKey key_;
};

template <class Graph>
void describe_attention(Graph& graph, const AttentionPlanKey& key) {
  AttentionGraph<Graph> attention(graph, key);
  return key.direction == Direction::kForward ? attention.forward() : attention.backward();
}

}  // namespace qstep::ops
