// What the benchmarks share: the shape of a GPT-2 124M step and matrices filled with numbers of
// order one. Rates count the bytes an operation must move when each operand passes through memory
// once.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "ops/elementwise.h"
#include "ops/parallel_for.h"
#include "ops/simd/simd.h"
#include "ops/tensor.h"
#include "precision/philox.h"

namespace qstep::bench {

using ops::Dtype;
using ops::Tensor;

inline constexpr int64_t kBatch = 4;
inline constexpr int64_t kSeqLen = 256;
inline constexpr int64_t kTokens = kBatch * kSeqLen;
inline constexpr int64_t kChannels = 768;
inline constexpr int64_t kHeads = 12;
inline constexpr int64_t kHeadDim = kChannels / kHeads;
inline constexpr int64_t kFeedForward = 4 * kChannels;
inline constexpr int64_t kVocab = 50257;
inline constexpr int64_t kPaddedVocab = 50304;
inline constexpr int64_t kParameters = 124'475'904;  // with the padded vocabulary

class Matrix {
 public:
  Matrix(Dtype dtype, int64_t rows, int64_t cols)
      : memory_(std::aligned_alloc(
            kPage, static_cast<size_t>((rows * cols * ops::size_bytes(dtype) + kPage - 1) / kPage *
                                       kPage))),
        tensor_(ops::matrix(memory_.get(), dtype, rows, cols)) {
    ops::cpu::zero(tensor_);  // pages belong to the threads that use them
  }

  // Uniform in [-1, 1).
  Matrix& randomize() {
    ops::dispatch_float(tensor_.dtype, [&](auto tag) {
      auto* const p = tensor_.as<decltype(tag)>();
      ops::parallel_for(tensor_.size(), [&](int64_t i) {
        const uint32_t bits = precision::philox4x32(1, {{static_cast<uint32_t>(i), 0, 0, 0}}).w[0];
        ops::store_part(p + i, ops::broadcast(static_cast<float>(bits) * 0x1p-31f - 1.0f), 1);
      });
    });
    return *this;
  }
  Matrix& fill_tokens(int64_t vocab) {
    auto* const p = tensor_.as<int32_t>();
    for (int64_t i = 0; i < tensor_.size(); ++i) {
      const uint32_t bits = precision::philox4x32(2, {{static_cast<uint32_t>(i), 0, 0, 0}}).w[0];
      p[i] = static_cast<int32_t>(bits % static_cast<uint32_t>(vocab));
    }
    return *this;
  }

  operator const Tensor&() const { return tensor_; }
  const Tensor& tensor() const { return tensor_; }

 private:
  static constexpr int64_t kPage = 4096;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  Tensor tensor_;
};

// Reports bytes/s for `bytes` a pass.
inline void count_bytes(benchmark::State& state, int64_t bytes) {
  state.SetBytesProcessed(state.iterations() * bytes);
}
// Reports flop/s for `flops` a pass.
inline void count_flops(benchmark::State& state, double flops) {
  state.counters["flop/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
}

}  // namespace qstep::bench
