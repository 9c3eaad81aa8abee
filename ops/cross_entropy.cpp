#include "ops/cross_entropy.h"

#include <algorithm>

#include "ops/cross_entropy_row.h"
#include "ops/parallel_for.h"

namespace qstep::ops::cpu {

void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                           int64_t vocab) {
  check_cross_entropy(loss, logits, targets, vocab);
  const int32_t* const target = targets.as<int32_t>();
  check_targets(target, logits.rows, vocab);
  float* const ploss = loss.as<float>();
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* const px = logits.as<T>();
    parallel_for(logits.rows, [&](int64_t n) {
      const T* const x = px + n * logits.ld;
      ploss[n] = loss_of(softmax_row(x, vocab), precision::to_float(x[target[n]]));
    });
  });
}

void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                            int64_t vocab, float scale) {
  check_cross_entropy(loss, logits, targets, vocab);
  const int32_t* const target = targets.as<int32_t>();
  check_targets(target, logits.rows, vocab);
  float* const ploss = loss.as<float>();
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const px = logits.as<T>();
    parallel_for(logits.rows, [&](int64_t n) {
      T* const x = px + n * logits.ld;
      const SoftmaxRow row = softmax_row(static_cast<const T*>(x), vocab);
      ploss[n] = loss_of(row, precision::to_float(x[target[n]]));
      gradient_row(x, vocab, target[n], row, scale);
      std::fill(x + vocab, x + logits.cols, T{});
    });
  });
}

}  // namespace qstep::ops::cpu
