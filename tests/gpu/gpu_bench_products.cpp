// GEMMs of every format, and attention: the shapes of Llama 3.2 1B on 16384 tokens, and a square.
#include <fmt/format.h>

#include "ops/native_form.h"
#include "tests/bench/quantize_cases.h"
#include "tests/gpu/gpu_bench.h"

namespace qstep::bench {
namespace {

using ops::Accumulate;
using ops::Ops;
using ops::Orientation;
using ops::QuantizedTensor;

struct Shape {
  const char* what;
  int64_t m, n, k;
};
constexpr Shape kShapes[] = {
    {"square", 8192, 8192, 8192}, {"gate and up", 16384, 16384, 2048}, {"down", 16384, 2048, 8192}};

GpuCase plain(const Shape& s) {
  const auto make = [s](Tensors& t) -> GpuCalls {
    const Tensor d = t.zeros(Dtype::kBf16, s.m, s.n);
    const Tensor a = t.random(Dtype::kBf16, s.m, s.k), b = t.random(Dtype::kBf16, s.n, s.k);
    return {
        [=](Ops& ops) { ops.gemm(d, ops::rowwise(a), ops::rowwise(b), 1.0f, Accumulate::kNo); }};
  };
  return {fmt::format("gemm bf16 {} {} x {} x {}", s.what, s.m, s.n, s.k), make};
}

// As wgrad reads them: both along their rows, added to FP32.
GpuCase plain_wgrad(const Shape& s) {
  const auto make = [s](Tensors& t) -> GpuCalls {
    const Tensor d = t.zeros(Dtype::kF32, s.m, s.n);
    const Tensor a = t.random(Dtype::kBf16, s.k, s.m), b = t.random(Dtype::kBf16, s.k, s.n);
    return {[=](Ops& ops) {
      ops.gemm(d, ops::columnwise(a), ops::columnwise(b), 1.0f, Accumulate::kYes);
    }};
  };
  return {fmt::format("gemm bf16 {} wgrad {} x {} x {}", s.what, s.m, s.n, s.k), make};
}

// What a GEMM reads of its operands: the codes, natively, or BF16 that they were decoded to.
enum class Reads : uint8_t { kCodes, kValues };

GpuCase quantized(const char* format, const QuantSpec& left, const QuantSpec& right, const Shape& s,
                  Reads reads) {
  const auto make = [=](Tensors& t) -> GpuCalls {
    const bool codes = reads == Reads::kCodes;
    if (codes && !t.ops().multiplies_codes({.a = ops::native_form(left),
                                            .b = ops::native_form(right),
                                            .m = s.m,
                                            .n = s.n,
                                            .k = s.k,
                                            .out = Dtype::kBf16})) {
      return {};
    }
    const Tensor d = t.zeros(Dtype::kBf16, s.m, s.n);
    const Tensor a = t.random(Dtype::kBf16, s.m, s.k), b = t.random(Dtype::kBf16, s.n, s.k);
    const auto lay_out = [&](const QuantSpec& spec, int64_t rows) {
      return ops::lay_out_quantized(t.arena(), "operand", spec, Orientation::kRowwise, rows, s.k,
                                    {.values = !codes, .codes = codes});
    };
    const QuantizedTensor qa = lay_out(left, s.m), qb = lay_out(right, s.n);
    return {
        .timed = [=](Ops& ops) { ops.gemm(d, operand(qa), operand(qb), 1.0f, Accumulate::kNo); },
        .before =
            [=](Ops& ops) {
              ops.quantize(qa, {}, a, {});
              ops.quantize(qb, {}, b, {});
            }};
  };
  return {fmt::format("gemm {}{} {} {} x {} x {}", format,
                      reads == Reads::kCodes ? "" : " (emulated)", s.what, s.m, s.n, s.k),
          make};
}

enum class Pass : uint8_t { kForward, kBackward };
GpuCase attention(const ops::AttentionShape& s, Pass pass) {
  const auto make = [=](Tensors& t) -> GpuCalls {
    const Tensor qkv = t.random(Dtype::kBf16, s.n_tokens(), s.qkv_width());
    const Tensor o = t.zeros(Dtype::kBf16, s.n_tokens(), s.q_width());
    const Tensor lse = t.zeros(Dtype::kF32, s.batch * s.n_heads, s.seq_len);
    const auto forward = [=](Ops& ops) { ops.attention_forward(o, lse, qkv, s); };
    if (pass == Pass::kForward) return {forward};
    const Tensor dqkv = t.zeros(Dtype::kBf16, s.n_tokens(), s.qkv_width());
    const Tensor d_o = t.random(Dtype::kBf16, s.n_tokens(), s.q_width());
    return {.timed = [=](Ops& ops) { ops.attention_backward(dqkv, d_o, qkv, o, lse, s); },
            .before = forward};
  };
  return {fmt::format("attention {} B {} T {} H {} K {} D {}",
                      pass == Pass::kForward ? "forward" : "backward", s.batch, s.seq_len,
                      s.n_heads, s.n_kv_heads, s.head_dim),
          make};
}

}  // namespace

std::vector<GpuCase> product_cases() {
  const QuantSpec fp8 = of(precision::QuantFormat::kFp8E4m3);
  const QuantSpec mxfp8 = of(precision::QuantFormat::kMxfp8E4m3);
  std::vector<GpuCase> cases;
  for (const Shape& s : kShapes) {
    cases.push_back(plain(s));
    cases.push_back(plain_wgrad(s));
    for (const Reads reads : {Reads::kCodes, Reads::kValues}) {
      if (reads == Reads::kValues && &s != kShapes) continue;  // BF16 products, one way or another
      cases.push_back(quantized("fp8", fp8, fp8, s, reads));
      cases.push_back(quantized("fp8 1x128 128x128", fp8_blocks(1), fp8_blocks(128), s, reads));
      cases.push_back(quantized("mxfp8", mxfp8, mxfp8, s, reads));
      cases.push_back(quantized("nvfp4", nvfp4(), nvfp4(), s, reads));
    }
  }
  for (const ops::AttentionShape& s :
       {ops::AttentionShape{8, 2048, 32, 8, 64}, ops::AttentionShape{2, 8192, 32, 8, 64},
        ops::AttentionShape{4, 4096, 16, 4, 128}}) {
    cases.push_back(attention(s, Pass::kForward));
    cases.push_back(attention(s, Pass::kBackward));
  }
  return cases;
}

}  // namespace qstep::bench
