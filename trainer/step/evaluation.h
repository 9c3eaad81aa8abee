// Loss on the validation part of a token store.
#pragma once

#include <cstdint>
#include <functional>

#include "data/loader.h"
#include "parallel/comm.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

struct EvalResult {
  double loss = 0;  // mean over the targets, nats
  double bits_per_byte =
      0;               // loss / ln 2 * tokens per byte; NaN when the store does not know its bytes
  int64_t tokens = 0;  // targets
};

// Mean over the first `n_batches` validation micro-batches (all, when there are fewer), in order.
// `loss_of` returns the mean loss of one. Tokens is 0 when the store has no validation part of T +
// 1 tokens. The ranks of `comm` share the batches and get the same result, which does not depend on
// their number.
EvalResult evaluate(const data::TokenStore& store, const data::Loader& loader, parallel::Comm& comm,
                    int64_t n_batches, const std::function<float(const MicroBatch&)>& loss_of);

}  // namespace qstep::trainer
