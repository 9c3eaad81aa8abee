#include "ops/attention/attention_part.h"

#include <algorithm>

#include "ops/native_form.h"

namespace qstep::ops {

namespace {

constexpr int64_t kAlignment = 16;  // bytes

// Pieces of scratch memory start at multiples of 256 bytes.
int64_t padded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// The smallest divisor of n that is at least `least`, or n.
int64_t divisor(int64_t n, int64_t least) {
  int64_t d = std::min(n, least);
  while (n % d != 0) ++d;
  return d;
}

}  // namespace

AttentionPlanKey attention_plan_key(const AttentionShape& shape, Direction direction) {
  const bool backward = direction == Direction::kBackward;
  return {.direction = direction,
          .batch = shape.batch,
          .seq_len = shape.seq_len,
          .n_heads = shape.n_heads,
          .n_kv_heads = shape.n_kv_heads,
          .head_dim = shape.head_dim,
          .qkv_ld = shape.qkv_width(),
          .o_ld = shape.q_width(),
          .lse_ld = shape.seq_len,
          .d_o_ld = backward ? shape.q_width() : 0,
          .dqkv_ld = backward ? shape.qkv_width() : 0};
}

AttentionPlanKey part_of(AttentionPlanKey key, int64_t n) {
  // The lse of each part would not start at a multiple of 16 bytes.
  if (key.lse_ld * static_cast<int64_t>(sizeof(float)) % kAlignment != 0) return key;
  const int64_t of_batch = divisor(key.batch, n);
  const int64_t of_heads = divisor(key.n_kv_heads, (n + of_batch - 1) / of_batch);
  key.batch /= of_batch;
  key.n_heads /= of_heads;
  key.n_kv_heads /= of_heads;
  return key;
}

AttentionPlanKey part_within(const AttentionPlanKey& key, int64_t workspace, int64_t limit) {
  return workspace <= limit ? key : part_of(key, (workspace + limit - 1) / limit);
}

int64_t attention_delta_bytes(const AttentionPlanKey& part) {
  if (part.direction == Direction::kForward) return 0;
  return part.batch * part.n_heads * part.seq_len * static_cast<int64_t>(sizeof(float));
}

int64_t attention_workspace_offset(const AttentionPlanKey& part) {
  return padded(attention_delta_bytes(part));
}

int64_t expected_attention_workspace(const AttentionPlanKey& part, int capability) {
  if (part.direction == Direction::kForward) return 0;
  const bool data_center_blackwell = capability / 10 == 10;
  const int64_t element = data_center_blackwell ? 4 : 2;
  const int64_t rows = part.batch * part.seq_len;
  const bool grouped = part.n_kv_heads < part.n_heads;
  const int64_t dk_dv = grouped ? 2 * element * rows * part.n_heads * part.head_dim : 0;
  const int64_t ds_rows = round_up(part.seq_len, 64), ds_columns = round_up(part.seq_len, 128);
  const int64_t ds =
      data_center_blackwell ? 0 : 2 * part.batch * part.n_heads * ds_rows * ds_columns;
  return ds + dk_dv;
}

int64_t expected_attention_scratch(const AttentionShape& shape, Direction direction,
                                   int capability) {
  const AttentionPlanKey key = attention_plan_key(shape, direction);
  const AttentionPlanKey part =
      part_within(key, expected_attention_workspace(key, capability), kAttentionScratchLimit);
  return attention_scratch_bytes(part, expected_attention_workspace(part, capability));
}

}  // namespace qstep::ops
