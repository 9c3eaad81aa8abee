// Norms, biases, activations, rotary positions and the loss: the CUDA backend against its kernels
// run on the host, which tests/ops proves against FP64. The same order of operations, so the same
// bits, but where the GPU's special functions stand for exp and log.
#include "ops/activation_kernels.h"
#include "ops/bias_kernels.h"
#include "ops/cross_entropy_kernels.h"
#include "ops/elementwise_kernels.h"
#include "ops/layernorm_kernels.h"
#include "ops/qk_norm_kernels.h"
#include "ops/rmsnorm_kernels.h"
#include "ops/rope_kernels.h"
#include "tests/gpu/on_gpu.h"
#include "tests/ops/shapes.h"
#include "tests/support/host_launch.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::CudaContext;
namespace cuda = ops::cuda;
namespace device = ops::device;

const HostLaunch kHost;
constexpr float kEps = 1e-5f;

// And widths of models, teams of every size, rows of several blocks of work, more rows than a GPU
// works on at a time.
template <class F>
void for_each_case(F&& f) {
  constexpr RowShape kWide[] = {
      {130, 768, 0}, {67, 4096, 8}, {3, 20008, 0}, {5, 30001, 3}, {5003, 200, 8}};
  const auto traced = [&](Dtype dtype, const RowShape& s) {
    SCOPED_TRACE(describe(dtype, s));
    f(dtype, s);
  };
  for_each_row_shape(traced);
  for (const Dtype dtype : kFloatTypes) {
    for (const RowShape& s : kWide) traced(dtype, s);
  }
}

// A matrix of a case; a row of its width; a row of its height.
Guarded filled(Guarded g, uint64_t seed, double low = -2, double high = 2) {
  Random random(seed);
  g.fill(random, low, high);
  return g;
}
Guarded rows_of(Dtype dtype, const RowShape& s, uint64_t seed) {
  return filled({dtype, s.rows, s.cols, s.gap}, seed);
}
Guarded width_of(Dtype dtype, const RowShape& s, uint64_t seed) {
  return filled({dtype, 1, s.cols}, seed, 0.5, 1.5);
}
Guarded height_of(const RowShape& s, uint64_t seed) {
  return filled({Dtype::kF32, 1, s.rows}, seed, 0.5, 1.5);
}
template <class... G>
std::vector<Guarded> list(G... g) {
  std::vector<Guarded> all;
  (all.push_back(std::move(g)), ...);
  return all;
}

class RowOpsOnGpu : public OnGpu {};

TEST_F(RowOpsOnGpu, CastAndAdd) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    for (const Dtype to : kFloatTypes) {
      expect_same_on_gpu(
          [&] { return list(Guarded(to, s.rows, s.cols, s.gap), rows_of(dtype, s, 1)); },
          [](const Tensors& t) { device::cast(kHost, t[0], t[1]); },
          [](const Tensors& t, CudaContext& c) { cuda::cast(t[0], t[1], c); }, "cast");
    }
    for (const size_t n : {2, 3, 4}) {
      const auto first = [n](const Tensors& t) { return std::span(t).first(n); };
      expect_same_on_gpu(
          [&] {
            return list(rows_of(dtype, s, 2), rows_of(dtype, s, 3), rows_of(dtype, s, 7),
                        rows_of(dtype, s, 8));
          },
          [&](const Tensors& t) { device::add(kHost, t[0], first(t)); },
          [&](const Tensors& t, CudaContext& c) { cuda::add(t[0], first(t), c); }, "add in place");
    }
    expect_same_on_gpu([&] { return list(rows_of(dtype, s, 2)); },
                       [](const Tensors& t) { ops::cpu::zero(t[0]); },
                       [](const Tensors& t, CudaContext& c) { cuda::zero(t[0], c); }, "zero");
  });
}

TEST_F(RowOpsOnGpu, RmsNorm) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    expect_same_on_gpu(
        [&] {
          return list(Guarded(dtype, s.rows, s.cols, s.gap), Guarded(Dtype::kF32, 1, s.rows),
                      rows_of(dtype, s, 4), width_of(dtype, s, 5));
        },
        [](const Tensors& t) { device::rmsnorm_forward(kHost, t[0], t[1], t[2], t[3], kEps, {}); },
        [](const Tensors& t, CudaContext& c) {
          cuda::rmsnorm_forward(t[0], t[1], t[2], t[3], kEps, {}, c);
        },
        "rmsnorm_forward");
    expect_same_on_gpu(
        [&] {
          return list(rows_of(dtype, s, 6), Guarded(dtype, s.rows, s.cols, s.gap),
                      Guarded(Dtype::kF32, 1, s.rows), rows_of(dtype, s, 7), width_of(dtype, s, 8));
        },
        [](const Tensors& t) {
          device::residual_rmsnorm_forward(kHost, t[0], t[1], t[2], t[0], t[3], t[4], kEps, {});
        },
        [](const Tensors& t, CudaContext& c) {
          cuda::residual_rmsnorm_forward(t[0], t[1], t[2], t[0], t[3], t[4], kEps, {}, c);
        },
        "residual_rmsnorm_forward in place");
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      expect_same_on_gpu(
          [&] {
            return list(rows_of(dtype, s, 9), width_of(Dtype::kF32, s, 10), rows_of(dtype, s, 11),
                        rows_of(dtype, s, 12), width_of(dtype, s, 13), height_of(s, 14));
          },
          [&](const Tensors& t) {
            device::rmsnorm_backward(kHost, t[0], t[1], t[2], t[3], t[4], t[5], mode, mode, {});
          },
          [&](const Tensors& t, CudaContext& c) {
            cuda::rmsnorm_backward(t[0], t[1], t[2], t[3], t[4], t[5], mode, mode, {}, c);
          },
          "rmsnorm_backward");
    }
  });
}

TEST_F(RowOpsOnGpu, LayerNorm) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    expect_same_on_gpu(
        [&] {
          return list(Guarded(dtype, s.rows, s.cols, s.gap), Guarded(Dtype::kF32, 1, s.rows),
                      Guarded(Dtype::kF32, 1, s.rows), rows_of(dtype, s, 20),
                      width_of(dtype, s, 21), width_of(dtype, s, 22));
        },
        [](const Tensors& t) {
          device::layernorm_forward(kHost, t[0], t[1], t[2], t[3], t[4], t[5], kEps, {});
        },
        [](const Tensors& t, CudaContext& c) {
          cuda::layernorm_forward(t[0], t[1], t[2], t[3], t[4], t[5], kEps, {}, c);
        },
        "layernorm_forward");
    expect_same_on_gpu(
        [&] {
          return list(rows_of(dtype, s, 23), Guarded(dtype, s.rows, s.cols, s.gap),
                      Guarded(Dtype::kF32, 1, s.rows), Guarded(Dtype::kF32, 1, s.rows),
                      rows_of(dtype, s, 24), width_of(dtype, s, 25), width_of(dtype, s, 26));
        },
        [](const Tensors& t) {
          device::residual_layernorm_forward(kHost, t[0], t[1], t[2], t[3], t[0], t[4], t[5], t[6],
                                             kEps, {});
        },
        [](const Tensors& t, CudaContext& c) {
          cuda::residual_layernorm_forward(t[0], t[1], t[2], t[3], t[0], t[4], t[5], t[6], kEps, {},
                                           c);
        },
        "residual_layernorm_forward in place");
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      expect_same_on_gpu(
          [&] {
            return list(rows_of(dtype, s, 27), width_of(Dtype::kF32, s, 28),
                        width_of(Dtype::kF32, s, 29), rows_of(dtype, s, 30), rows_of(dtype, s, 31),
                        width_of(dtype, s, 32), height_of(s, 33), height_of(s, 34));
          },
          [&](const Tensors& t) {
            device::layernorm_backward(kHost, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], mode,
                                       mode, {});
          },
          [&](const Tensors& t, CudaContext& c) {
            cuda::layernorm_backward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], mode, mode, {},
                                     c);
          },
          "layernorm_backward");
    }
  });
}

TEST_F(RowOpsOnGpu, Bias) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      expect_same_on_gpu(
          [&] { return list(width_of(Dtype::kF32, s, 40), rows_of(dtype, s, 41)); },
          [&](const Tensors& t) { device::bias_backward(kHost, t[0], t[1], mode); },
          [&](const Tensors& t, CudaContext& c) { cuda::bias_backward(t[0], t[1], mode, c); },
          "bias_backward");
    }
  });
}

constexpr ops::AttentionShape kHeads[] = {
    {.batch = 1, .seq_len = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 2},
    {.batch = 2, .seq_len = 35, .n_heads = 3, .n_kv_heads = 1, .head_dim = 14},
    {.batch = 3, .seq_len = 40, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64},
    {.batch = 1, .seq_len = 67, .n_heads = 8, .n_kv_heads = 2, .head_dim = 128},
    {.batch = 5, .seq_len = 250, .n_heads = 12, .n_kv_heads = 4, .head_dim = 64}};

TEST_F(RowOpsOnGpu, QkNorm) {
  for (const Dtype dtype : kFloatTypes) {
    for (const ops::AttentionShape& s : kHeads) {
      const RowShape rows{s.n_tokens(), s.qkv_width(), 8}, head{1, s.head_dim, 0};
      const int64_t n_normed = s.n_heads + s.n_kv_heads;
      expect_same_on_gpu(
          [&] {
            return list(Guarded(dtype, rows.rows, rows.cols, 8),
                        Guarded(Dtype::kF32, rows.rows, n_normed, 1), rows_of(dtype, rows, 50),
                        width_of(dtype, head, 51), width_of(dtype, head, 52));
          },
          [&](const Tensors& t) {
            device::qk_norm_forward(kHost, t[0], t[1], t[2], t[3], t[4], s, kEps);
          },
          [&](const Tensors& t, CudaContext& c) {
            cuda::qk_norm_forward(t[0], t[1], t[2], t[3], t[4], s, kEps, c);
          },
          "qk_norm_forward");
      expect_same_on_gpu(
          [&] {
            return list(rows_of(dtype, rows, 53), width_of(Dtype::kF32, head, 54),
                        width_of(Dtype::kF32, head, 55), rows_of(dtype, rows, 56),
                        width_of(dtype, head, 57), width_of(dtype, head, 58),
                        filled({Dtype::kF32, rows.rows, n_normed, 1}, 59, 0.5, 1.5));
          },
          [&](const Tensors& t) {
            device::qk_norm_backward(kHost, t[0], t[1], t[2], t[3], t[4], t[5], t[6], s,
                                     Accumulate::kYes);
          },
          [&](const Tensors& t, CudaContext& c) {
            cuda::qk_norm_backward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], s, Accumulate::kYes,
                                   c);
          },
          "qk_norm_backward");
    }
  }
}

TEST_F(RowOpsOnGpu, Rope) {
  constexpr int64_t kFirst = 3;
  for (const Dtype dtype : kFloatTypes) {
    for (const ops::AttentionShape& s : kHeads) {
      const RowShape rows{s.n_tokens(), s.qkv_width(), 8}, table{kFirst + s.seq_len, s.head_dim, 0};
      for (const auto direction : {ops::Direction::kForward, ops::Direction::kBackward}) {
        expect_same_on_gpu(
            [&] { return list(rows_of(dtype, rows, 60), rows_of(Dtype::kF32, table, 61)); },
            [&](const Tensors& t) { device::rope(kHost, t[0], t[1], s, kFirst, direction); },
            [&](const Tensors& t, CudaContext& c) {
              cuda::rope(t[0], t[1], s, kFirst, direction, c);
            },
            "rope");
      }
    }
  }
}

// The logistic functions of both sides are within 2^-22 of the exact one, e^x within 2^-21 + |x|
// 2^-23 (ops/fast_math.h). Inputs are below 2 in magnitude, a slope below 4 times as much: 2^-18.
// Then the rounding of the output, which may go either way.
double special_function_error(Dtype dtype) { return 0x1p-18 + 2 * roundoff(dtype); }

TEST_F(RowOpsOnGpu, Activations) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    for (const auto kind :
         {ops::Activation::kGelu, ops::Activation::kRelu2, ops::Activation::kSwiglu}) {
      const RowShape in{s.rows, ops::activation_input_width(kind, s.cols), s.gap};
      const auto error = [&](size_t) { return special_function_error(dtype); };
      expect_same_on_gpu(
          [&] { return list(Guarded(dtype, s.rows, s.cols, s.gap), rows_of(dtype, in, 70)); },
          [&](const Tensors& t) { device::activation_forward(kHost, t[0], t[1], kind, {}); },
          [&](const Tensors& t, CudaContext& c) {
            cuda::activation_forward(t[0], t[1], kind, {}, c);
          },
          "activation_forward", error);
      expect_same_on_gpu(
          [&] {
            return list(Guarded(dtype, in.rows, in.cols, in.gap), rows_of(dtype, s, 71),
                        rows_of(dtype, in, 72));
          },
          [&](const Tensors& t) { device::activation_backward(kHost, t[0], t[1], t[2], kind, {}); },
          [&](const Tensors& t, CudaContext& c) {
            cuda::activation_backward(t[0], t[1], t[2], kind, {}, c);
          },
          "activation_backward", error);
    }
  });
}

// Logits are below 2 in magnitude: the error of a probability is that of e^x, twice, and of sums of
// as many roundings as a thread has turns; the loss's is absolute.
TEST_F(RowOpsOnGpu, CrossEntropy) {
  for (const Dtype dtype : kFloatTypes) {
    for (const RowShape& s : {RowShape{1, 8, 0},
                              {3, 24, 5},
                              {7, 264, 0},
                              {5, 5008, 8},
                              {3, 50304, 0},
                              {2003, 520, 0}}) {
      const int64_t vocab = s.cols - 5;
      const auto targets = [&] {
        Guarded t(Dtype::kI32, 1, s.rows);
        Random random(80);
        for (int64_t n = 0; n < s.rows; ++n) {
          t.set(0, n, static_cast<double>(random.integer(0, vocab - 1)));
        }
        return t;
      };
      const auto error = [&](size_t i) { return i == 2 ? 0.0 : special_function_error(dtype); };
      const auto make = [&] {
        return list(Guarded(Dtype::kF32, 1, s.rows), rows_of(dtype, s, 81), targets());
      };
      expect_same_on_gpu(
          make,
          [&](const Tensors& t) { device::cross_entropy_forward(kHost, t[0], t[1], t[2], vocab); },
          [&](const Tensors& t, CudaContext& c) {
            cuda::cross_entropy_forward(t[0], t[1], t[2], vocab, c);
          },
          "cross_entropy_forward", error);
      expect_same_on_gpu(
          make,
          [&](const Tensors& t) {
            device::cross_entropy_backward(kHost, t[0], t[1], t[2], vocab, 0.5f);
          },
          [&](const Tensors& t, CudaContext& c) {
            cuda::cross_entropy_backward(t[0], t[1], t[2], vocab, 0.5f, c);
          },
          "cross_entropy_backward", error);
      // This rank has the columns from token 4 on.
      expect_same_on_gpu(
          [&] { return list(Guarded(Dtype::kF32, 3, s.rows), rows_of(dtype, s, 82), targets()); },
          [&](const Tensors& t) { device::cross_entropy_part(kHost, t[0], t[1], t[2], 4, vocab); },
          [&](const Tensors& t, CudaContext& c) {
            cuda::cross_entropy_part(t[0], t[1], t[2], 4, vocab, c);
          },
          "cross_entropy_part", error);
      expect_same_on_gpu(
          [&] {
            return list(Guarded(Dtype::kF32, 1, s.rows), Guarded(Dtype::kF32, 1, s.rows),
                        filled({Dtype::kF32, 6, s.rows}, 83, 0.5, 2));
          },
          [&](const Tensors& t) { device::cross_entropy_join(kHost, t[0], t[1], t[2]); },
          [&](const Tensors& t, CudaContext& c) { cuda::cross_entropy_join(t[0], t[1], t[2], c); },
          "cross_entropy_join", error);
      expect_same_on_gpu([&] { return list(rows_of(dtype, s, 84), height_of(s, 85), targets()); },
                         [&](const Tensors& t) {
                           device::cross_entropy_part_backward(kHost, t[0], t[1], t[2], 4, vocab,
                                                               0.5f);
                         },
                         [&](const Tensors& t, CudaContext& c) {
                           cuda::cross_entropy_part_backward(t[0], t[1], t[2], 4, vocab, 0.5f, c);
                         },
                         "cross_entropy_part_backward", error);
    }
  }
}

}  // namespace
}  // namespace qstep::test
