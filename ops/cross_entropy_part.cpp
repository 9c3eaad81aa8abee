#include "ops/cross_entropy_part.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cross_entropy_row.h"
#include "ops/parallel_for.h"

namespace qstep::ops::cpu {

namespace {

// Columns that stand for tokens of the vocabulary; the others are padding.
int64_t columns_below(int64_t vocab, int64_t first_token, int64_t columns) {
  return std::clamp(vocab - first_token, int64_t{0}, columns);
}

}  // namespace

void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                        int64_t first_token, int64_t vocab) {
  check_cross_entropy_part(part, logits, targets, first_token, vocab);
  const int32_t* const target = targets.as<int32_t>();
  check_targets(target, logits.rows, vocab);
  float* const largest = part.as<float>();
  float* const sum = largest + part.ld;
  float* const target_logit = sum + part.ld;
  const int64_t n_columns = columns_below(vocab, first_token, logits.cols);
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* const px = logits.as<T>();
    parallel_for(logits.rows, [&](int64_t n) {
      const T* const x = px + n * logits.ld;
      const SoftmaxRow row = softmax_row(x, n_columns);
      const int64_t column = target[n] - first_token;
      const bool has_target = column >= 0 && column < n_columns;
      // The sum has exp(0) where any logit is above -infinity.
      largest[n] = row.sum == 0.0f ? -std::numeric_limits<float>::infinity() : row.max;
      sum[n] = row.sum;
      target_logit[n] = has_target ? precision::to_float(x[column]) : 0.0f;
    });
  });
}

void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) {
  check_cross_entropy_join(loss, lse, parts);
  float* const ploss = loss.as<float>();
  float* const plse = lse.as<float>();
  const float* const pparts = parts.as<float>();
  parallel_for(parts.cols, [&](int64_t n) {
    const auto value = [&](int64_t r) { return pparts[r * parts.ld + n]; };
    SoftmaxRow row{std::numeric_limits<float>::lowest(), 0.0f};
    for (int64_t r = 0; r < parts.rows; r += 3) row.max = std::max(row.max, value(r));
    float target_logit = 0.0f;
    for (int64_t r = 0; r < parts.rows; r += 3) {
      row.sum += value(r + 1) * std::exp(value(r) - row.max);  // 0 * 0 where a rank has nothing
      target_logit += value(r + 2);
    }
    ploss[n] = loss_of(row, target_logit);
    plse[n] = std::log(row.sum) + row.max;
  });
}

void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                 int64_t first_token, int64_t vocab, float scale) {
  check_cross_entropy_part_backward(logits, lse, targets, first_token, vocab);
  const int32_t* const target = targets.as<int32_t>();
  check_targets(target, logits.rows, vocab);
  const float* const plse = lse.as<float>();
  const int64_t n_columns = columns_below(vocab, first_token, logits.cols);
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const px = logits.as<T>();
    parallel_for(logits.rows, [&](int64_t n) {
      T* const x = px + n * logits.ld;
      // exp(x - lse) needs no division: with lse in the maximum's place the sum is 1.
      gradient_row(x, n_columns, target[n] - first_token, SoftmaxRow{plse[n], 1.0f}, scale);
      std::fill(x + n_columns, x + logits.cols, T{});
    });
  });
}

}  // namespace qstep::ops::cpu
