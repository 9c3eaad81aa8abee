// Loops that do nothing but keep the processor busy: what it can do at best.
#pragma once

#include <cstdint>

namespace qstep::ops {

// Fused multiply-adds on registers, on the calling thread. `run` returns something that depends on
// every one of them, so that none is left out; null where this build has no such instruction.
struct RegisterChain {
  float (*run)(int64_t n_turns) = nullptr;
  double flops_per_turn = 0;  // a multiply-add is two
};
RegisterChain fp32_chain();
RegisterChain bf16_chain();  // the native BF16 dot product

// a[i] = b[i] + s c[i], all threads: STREAM's triad (McCalpin 1995).
void triad(float* a, const float* b, const float* c, float s, int64_t n);

}  // namespace qstep::ops
