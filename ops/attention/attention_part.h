// What decides which of cuDNN's kernels computes attention, the parts that a problem is computed
// in, and the scratch memory that they take: arithmetic, without the library.
#pragma once

#include <compare>
#include <cstdint>

#include "ops/ops.h"

namespace qstep::ops {

// What decides which kernel runs: all but the addresses.
struct AttentionPlanKey {
  Direction direction = Direction::kForward;
  int64_t batch = 0, seq_len = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int64_t qkv_ld = 0, o_ld = 0, lse_ld = 0, d_o_ld = 0, dqkv_ld = 0;  // the last two: backward
  auto operator<=>(const AttentionPlanKey&) const = default;
};

// Of tensors without gaps between their rows.
AttentionPlanKey attention_plan_key(const AttentionShape& shape, Direction direction);

// One of at least n equal parts, as few as possible: sequences, and where those do not suffice
// key/value heads with their query heads. The whole where parts would not be aligned.
AttentionPlanKey part_of(AttentionPlanKey key, int64_t n);

// What the kernels of a part may take beside their tensors, unless it is a part that cannot be made
// smaller.
inline constexpr int64_t kAttentionScratchLimit = int64_t{1} << 30;
// The part to be computed at a time where the whole takes `workspace` bytes.
AttentionPlanKey part_within(const AttentionPlanKey& key, int64_t workspace, int64_t limit);

// FP32 [B H, T]: what backward's kernels read of do and o.
int64_t attention_delta_bytes(const AttentionPlanKey& part);
// Where the library's workspace begins behind it, and how much both are.
int64_t attention_workspace_offset(const AttentionPlanKey& part);
inline int64_t attention_scratch_bytes(const AttentionPlanKey& part, int64_t workspace) {
  return attention_workspace_offset(part) + workspace;
}

// The workspace of cuDNN 9.18 or later on a GPU of compute capability c (90: 9.0), for plans of
// runs elsewhere. Backward with the same bits on every run:
//   c / 10 = 10     dk, dv of each query head, FP32, where K < H
//   others          ds [B, H, T, T], and dk, dv of each query head where K < H, BF16; T of ds is
//                   rounded up to a multiple of 64 on one side and of 128 on the other
// Held against the library's own answers, but for less than a MiB (tests/gpu/attention_graph_test).
int64_t expected_attention_workspace(const AttentionPlanKey& part, int capability);

// Of a call on such a GPU, in the parts that it is computed in.
int64_t expected_attention_scratch(const AttentionShape& shape, Direction direction,
                                   int capability);

}  // namespace qstep::ops
