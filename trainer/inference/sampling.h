// The next token from its logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qstep::trainer {

struct SamplingOptions {
  double temperature = 1.0;  // 0: always the most probable token
  int64_t top_k = 0;         // keep the k most probable; 0 = all
  double top_p = 1.0;        // then the fewest of those whose probabilities reach p (Holtzman 2020)
  uint64_t seed = 1;
};

// Draws from softmax(logits / temperature) restricted by top_k and top_p. The random number is a
// function of (seed, position) alone. Error (non-finite) when a logit is NaN or infinite. `order`
// is scratch that is reused from call to call.
int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                     int64_t position, std::vector<int32_t>& order);

}  // namespace qstep::trainer
