// Operations bound by memory, on tensors many times the size of a GPU's cache.
#include <fmt/format.h>

#include <array>

#include "ops/native_form.h"
#include "ops/reduce.h"
#include "tests/bench/quantize_cases.h"
#include "tests/gpu/gpu_bench.h"

namespace qstep::bench {
namespace {

using ops::Accumulate;
using ops::Activation;
using ops::Ops;
using precision::StochasticRounder;

constexpr int64_t kTokens = 65536, kSeqLen = 4096, kChannels = 2048, kFeedForward = 8192;
constexpr int64_t kLogitTokens = 8192, kVocab = 128256;  // of Llama 3
constexpr ops::AttentionShape kHeads{kTokens / kSeqLen, kSeqLen, 16, 4, 128};
constexpr int64_t kParameters = int64_t{1} << 28;
constexpr float kEps = 1e-5f;

Tensor channels(Tensors& t) { return t.random(Dtype::kBf16, kTokens, kChannels); }
Tensor weight(Tensors& t, int64_t n) { return t.random(Dtype::kBf16, 1, n); }
Tensor floats(Tensors& t, int64_t n) { return t.zeros(Dtype::kF32, 1, n); }

GpuCalls cast(Tensors& t) {
  const Tensor y = t.zeros(Dtype::kBf16, kTokens, kChannels);
  const Tensor x = t.random(Dtype::kF32, kTokens, kChannels);
  return {[=](Ops& ops) { ops.cast(y, x); }};
}
// As the tree of gradients does: into the first.
template <size_t kAddends>
GpuCalls add(Tensors& t) {
  std::array<Tensor, kAddends> x;
  for (Tensor& addend : x) addend = floats(t, kParameters);
  return {[=](Ops& ops) { ops.add(x[0], x); }};
}
GpuCalls rmsnorm_forward(Tensors& t) {
  const Tensor sum = channels(t), y = channels(t), x = channels(t), delta = channels(t);
  const Tensor rstd = floats(t, kTokens), w = weight(t, kChannels);
  return {[=](Ops& ops) { ops.residual_rmsnorm_forward(sum, y, rstd, x, delta, w, kEps); }};
}
GpuCalls rmsnorm_backward(Tensors& t) {
  const Tensor dx = channels(t), dy = channels(t), x = channels(t);
  const Tensor rstd = t.random(Dtype::kF32, 1, kTokens), w = weight(t, kChannels);
  const Tensor dw = floats(t, kChannels);
  return {[=](Ops& ops) {
    ops.rmsnorm_backward(dx, dw, dy, x, w, rstd, Accumulate::kYes, Accumulate::kYes);
  }};
}
GpuCalls layernorm_forward(Tensors& t) {
  const Tensor sum = channels(t), y = channels(t), x = channels(t), delta = channels(t);
  const Tensor mean = floats(t, kTokens), rstd = floats(t, kTokens);
  const Tensor w = weight(t, kChannels), b = weight(t, kChannels);
  return {
      [=](Ops& ops) { ops.residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, kEps); }};
}
GpuCalls layernorm_backward(Tensors& t) {
  const Tensor dx = channels(t), dy = channels(t), x = channels(t);
  const Tensor mean = floats(t, kTokens), rstd = t.random(Dtype::kF32, 1, kTokens);
  const Tensor w = weight(t, kChannels), dw = floats(t, kChannels), db = floats(t, kChannels);
  return {[=](Ops& ops) {
    ops.layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, Accumulate::kYes, Accumulate::kYes);
  }};
}
GpuCalls rope(Tensors& t) {
  const Tensor qkv = t.random(Dtype::kBf16, kTokens, kHeads.qkv_width());
  const Tensor table = t.random(Dtype::kF32, kSeqLen, kHeads.head_dim);
  return {[=](Ops& ops) { ops.rope(qkv, table, kHeads, 0, ops::Direction::kForward); }};
}
GpuCalls swiglu_forward(Tensors& t) {
  const Tensor y = t.zeros(Dtype::kBf16, kTokens, kFeedForward);
  const Tensor x = t.random(Dtype::kBf16, kTokens, 2 * kFeedForward);
  return {[=](Ops& ops) { ops.activation_forward(y, x, Activation::kSwiglu); }};
}
GpuCalls swiglu_backward(Tensors& t) {
  const Tensor dx = t.zeros(Dtype::kBf16, kTokens, 2 * kFeedForward);
  const Tensor dy = t.random(Dtype::kBf16, kTokens, kFeedForward);
  const Tensor x = t.random(Dtype::kBf16, kTokens, 2 * kFeedForward);
  return {[=](Ops& ops) { ops.activation_backward(dx, dy, x, Activation::kSwiglu); }};
}
GpuCalls gelu_forward(Tensors& t) {
  const Tensor y = t.zeros(Dtype::kBf16, kTokens, kFeedForward);
  const Tensor x = t.random(Dtype::kBf16, kTokens, kFeedForward);
  return {[=](Ops& ops) { ops.activation_forward(y, x, Activation::kGelu); }};
}
GpuCalls bias_backward(Tensors& t) {
  const Tensor db = floats(t, kFeedForward);
  const Tensor dy = t.random(Dtype::kBf16, kTokens, kFeedForward);
  return {[=](Ops& ops) { ops.bias_backward(db, dy, Accumulate::kNo); }};
}
GpuCalls embedding_forward(Tensors& t) {
  const Tensor x = t.zeros(Dtype::kBf16, kTokens, kChannels), tokens = t.tokens(kTokens, kVocab);
  const Tensor wte = t.random(Dtype::kBf16, kVocab, kChannels);
  return {[=](Ops& ops) { ops.embedding_forward(x, tokens, wte, 0, {}, kSeqLen, 0); }};
}
GpuCalls embedding_backward(Tensors& t) {
  const Tensor dx = channels(t), tokens = t.tokens(kTokens, kVocab);
  const Tensor dwte = t.zeros(Dtype::kF32, kVocab, kChannels);
  return {[=](Ops& ops) {
    ops.embedding_backward(dwte, 0, {}, dx, tokens, kSeqLen, Accumulate::kYes);
  }};
}
GpuCalls cross_entropy(Tensors& t) {
  const Tensor logits = t.random(Dtype::kBf16, kLogitTokens, kVocab);
  const Tensor loss = floats(t, kLogitTokens), targets = t.tokens(kLogitTokens, kVocab);
  return {[=](Ops& ops) { ops.cross_entropy_backward(loss, logits, targets, kVocab, 1.0f); }};
}
GpuCalls square_sums(Tensors& t) {
  const Tensor g = t.random(Dtype::kF32, 1, kParameters);
  const Tensor sums = floats(t, ops::reduce_chunks(kParameters));
  return {[=](Ops& ops) { ops.square_sums(sums, g); }};
}
GpuCalls adamw(Tensors& t) {
  const Tensor w = t.zeros(Dtype::kBf16, 1, kParameters), m = floats(t, kParameters);
  const Tensor master = t.random(Dtype::kF32, 1, kParameters), v = floats(t, kParameters);
  const Tensor grad = t.random(Dtype::kF32, 1, kParameters);
  const Tensor factor = t.random(Dtype::kF32, 1, 1);
  return {[=](Ops& ops) {
    ops.adamw(w, master, m, v, grad, factor, {.lr = 1e-3f, .weight_decay = 0.1f});
  }};
}

enum class Into : uint8_t { kValues, kCodes };

GpuCase quantizer(const QuantizeCase& c, Into into,
                  StochasticRounder rounder = StochasticRounder::kPortable) {
  constexpr int64_t kRows = 16384, kCols = 8192;
  const bool hardware = rounder == StochasticRounder::kHardware;
  const auto make = [=](Tensors& t) -> GpuCalls {
    if (hardware && !t.ops().has_hardware_rounder()) return {};
    const Tensor x = t.random(Dtype::kBf16, kRows, kCols);
    const bool shared = into == Into::kValues && precision::transposable(c.row, c.column);
    const bool codes = into == Into::kCodes;
    const auto lay_out = [&](const QuantSpec& spec, ops::Orientation orientation, bool values) {
      return ops::lay_out_quantized(t.arena(), "quantized", spec, orientation, kRows, kCols,
                                    {.values = values, .codes = codes});
    };
    const auto row = lay_out(c.row, ops::Orientation::kRowwise, !codes);
    auto column = lay_out(c.column, ops::Orientation::kColumnwise, !codes && !shared);
    if (shared) column.values = row.values;
    ops::QuantCall call;
    call.random.rounder = rounder;
    return {[=](Ops& ops) { ops.quantize(row, column, x, call); }};
  };
  return {fmt::format("quantize {}{}{}", c.name, into == Into::kCodes ? ", codes" : "",
                      hardware ? ", cvt.rs" : ""),
          make, 2.0 * kRows * kCols * (c.passes - 1)};
}

}  // namespace

std::vector<GpuCase> memory_cases() {
  return {{"cast FP32 to BF16", cast},
          {"add two", add<2>},
          {"add four", add<4>},
          {"residual + RMSNorm forward", rmsnorm_forward},
          {"RMSNorm backward", rmsnorm_backward},
          {"residual + LayerNorm forward", layernorm_forward},
          {"LayerNorm backward", layernorm_backward},
          {"RoPE", rope},
          {"SwiGLU forward", swiglu_forward},
          {"SwiGLU backward", swiglu_backward},
          {"GELU forward", gelu_forward},
          {"bias backward", bias_backward},
          {"embedding forward", embedding_forward},
          {"embedding backward", embedding_backward},
          {"cross-entropy with its gradient", cross_entropy},
          {"sums of squares", square_sums},
          {"AdamW", adamw}};
}

std::vector<GpuCase> quantizer_cases() {
  std::vector<GpuCase> cases;
  for (const QuantizeCase& c : kQuantizeCases) {
    cases.push_back(quantizer(c, Into::kValues));
    if (ops::native_form(c.row) && ops::native_form(c.column)) {
      cases.push_back(quantizer(c, Into::kCodes));
    }
    if (c.row.rounding == precision::Rounding::kStochastic) {
      cases.push_back(quantizer(c, Into::kCodes, StochasticRounder::kHardware));
    }
  }
  return cases;
}

}  // namespace qstep::bench
