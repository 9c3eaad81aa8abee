#include "trainer/step/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace qstep::trainer {

EvalResult evaluate(const data::TokenStore& store, const data::Loader& loader, parallel::Comm& comm,
                    int64_t n_batches, const std::function<float(const MicroBatch&)>& loss_of) {
  const int64_t n = std::min(n_batches, loader.validation_batches());
  const auto batch_tokens = static_cast<size_t>(loader.batch_tokens());
  std::vector<int32_t> tokens(batch_tokens), targets(batch_tokens);
  std::vector<float> losses(static_cast<size_t>(n));  // zero where another rank has it
  for (int64_t i = comm.rank(); i < n; i += comm.size()) {
    loader.validation_batch(i, tokens, targets);
    losses[static_cast<size_t>(i)] = loss_of({tokens, targets});
  }
  comm.wait(comm.all_reduce(ops::view(std::span(losses)), parallel::Reduce::kSum));
  double sum = 0;
  for (const float loss : losses) sum += static_cast<double>(loss);
  EvalResult result;
  result.tokens = n * loader.batch_tokens();
  result.loss = n > 0 ? sum / static_cast<double>(n) : std::numeric_limits<double>::quiet_NaN();
  const uint64_t bytes = store.num_bytes(data::Part::kValidation);
  const double tokens_per_byte =
      bytes > 0 ? static_cast<double>(store.num_tokens(data::Part::kValidation)) /
                      static_cast<double>(bytes)
                : std::numeric_limits<double>::quiet_NaN();
  result.bits_per_byte = result.loss / std::numbers::ln2 * tokens_per_byte;
  return result;
}

}  // namespace qstep::trainer
