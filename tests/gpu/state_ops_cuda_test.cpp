// Embedding, reductions, optimizer and delayed scales of the CUDA backend: the bits of the CPU's
// loops, or, for the sums, of the kernels run on the host.
#include "ops/adamw.h"
#include "ops/embedding.h"
#include "ops/quantize/delayed_scaling.h"
#include "ops/reduce_kernels.h"
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

Guarded filled(Guarded g, uint64_t seed, double low = -1, double high = 1) {
  Random random(seed);
  g.fill(random, low, high);
  return g;
}
Guarded vector_of(int64_t n, uint64_t seed, double low = -1, double high = 1) {
  return filled({Dtype::kF32, 1, n}, seed, low, high);
}
template <class... G>
std::vector<Guarded> list(G... g) {
  std::vector<Guarded> all;
  (all.push_back(std::move(g)), ...);
  return all;
}

class StateOpsOnGpu : public OnGpu {};

constexpr int64_t kSizes[] = {1, 8, 17, 4096, 4097, 100003, 1 << 20};

TEST_F(StateOpsOnGpu, Embedding) {
  struct Case {
    int64_t batch, seq_len, channels, vocab, first_token, gap;
  };
  for (const Dtype dtype : kFloatTypes) {
    for (const Case& s : {Case{1, 1, 1, 1, 0, 0},
                          {3, 7, 17, 5, 2, 3},
                          {2, 40, 200, 60, 0, 8},
                          {4, 900, 64, 700, 100, 0},
                          {2, 300, 768, 70000, 0, 0}}) {
      const int64_t n = s.batch * s.seq_len, positions = s.seq_len + 2;
      const auto tokens = [&] {
        Guarded t(Dtype::kI32, 1, n);
        Random random(1);
        for (int64_t i = 0; i < n; ++i) {  // some of them other ranks'
          t.set(0, i, static_cast<double>(random.integer(0, s.vocab + s.first_token)));
        }
        return t;
      };
      for (const bool with_positions : {true, false}) {
        const auto wpe = [&](const Tensors& t) { return with_positions ? t[3] : Tensor{}; };
        expect_same_on_gpu(
            [&] {
              return list(Guarded(dtype, n, s.channels, s.gap), tokens(),
                          filled({dtype, s.vocab, s.channels, s.gap}, 2),
                          filled({dtype, positions, s.channels}, 3));
            },
            [&](const Tensors& t) {
              ops::cpu::embedding_forward(t[0], t[1], t[2], s.first_token, wpe(t), s.seq_len, 2);
            },
            [&](const Tensors& t, CudaContext& c) {
              cuda::embedding_forward(t[0], t[1], t[2], s.first_token, wpe(t), s.seq_len, 2, c);
            },
            "embedding_forward");
        for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
          expect_same_on_gpu(
              [&] {
                return list(filled({Dtype::kF32, s.vocab, s.channels, s.gap}, 4), tokens(),
                            filled({dtype, n, s.channels, s.gap}, 5),
                            filled({Dtype::kF32, positions, s.channels}, 6));
              },
              [&](const Tensors& t) {
                ops::cpu::embedding_backward(t[0], s.first_token, wpe(t), t[2], t[1], s.seq_len,
                                             mode);
              },
              [&](const Tensors& t, CudaContext& c) {
                cuda::embedding_backward(t[0], s.first_token, wpe(t), t[2], t[1], s.seq_len, mode,
                                         c);
              },
              "embedding_backward");
        }
      }
    }
  }
}

TEST_F(StateOpsOnGpu, Sums) {
  for (const int64_t n : kSizes) {
    expect_same_on_gpu([&] { return list(Guarded(Dtype::kF32, 1, 1), vector_of(n, 10)); },
                       [](const Tensors& t) { device::mean(kHost, t[0], t[1]); },
                       [](const Tensors& t, CudaContext& c) { cuda::mean(t[0], t[1], c); }, "mean");
    expect_same_on_gpu(
        [&] {
          return list(Guarded(Dtype::kF32, 1, 1), Guarded(Dtype::kF32, 1, ops::reduce_chunks(n)),
                      vector_of(n, 11));
        },
        [](const Tensors& t) {
          device::square_sums(kHost, t[1], t[2]);
          device::norm_of_sums(kHost, t[0], t[1]);
        },
        [](const Tensors& t, CudaContext& c) {
          cuda::square_sums(t[1], t[2], c);
          cuda::norm_of_sums(t[0], t[1], c);
        },
        "square_sums and norm_of_sums");
  }
}

TEST_F(StateOpsOnGpu, AdamW) {
  constexpr ops::AdamWParams kParams{.lr = 1e-2f, .weight_decay = 0.1f, .t = 3};
  for (const Dtype dtype : kFloatTypes) {
    for (const int64_t n : kSizes) {
      for (const double factor : {0.7, std::nan("")}) {
        expect_same_on_gpu(
            [&] {
              Guarded clip(Dtype::kF32, 1, 1);
              clip.fill(factor);
              return list(filled({dtype, 1, n}, 20), vector_of(n, 21), vector_of(n, 22, -0.1, 0.1),
                          vector_of(n, 23, 0, 1e-4), vector_of(n, 24), std::move(clip));
            },
            [&](const Tensors& t) { ops::cpu::adamw(t[0], t[1], t[2], t[3], t[4], t[5], kParams); },
            [&](const Tensors& t, CudaContext& c) {
              cuda::adamw(t[0], t[1], t[2], t[3], t[4], t[5], kParams, c);
            },
            "adamw");
      }
    }
  }
}

TEST_F(StateOpsOnGpu, ClipFactor) {
  const double kBad = std::nan("");
  for (const double norm : {0.0, 0.5, 3.0, kBad, HUGE_VAL}) {
    for (const double loss : {2.0, kBad}) {
      for (const float max_norm : {0.0f, 1.0f}) {
        expect_same_on_gpu(
            [&] {
              Guarded n(Dtype::kF32, 1, 1), l(Dtype::kF32, 1, 1);
              n.fill(norm);
              l.fill(loss);
              return list(Guarded(Dtype::kF32, 1, 1), std::move(n), std::move(l));
            },
            [&](const Tensors& t) { ops::cpu::clip_factor(t[0], t[1], t[2], max_norm); },
            [&](const Tensors& t, CudaContext& c) {
              cuda::clip_factor(t[0], t[1], t[2], max_norm, c);
            },
            "clip_factor");
      }
    }
  }
}

TEST_F(StateOpsOnGpu, DelayedScales) {
  using precision::DelayedAlgo;
  for (const int64_t steps : {1, 2, 16, 1024}) {
    for (const DelayedAlgo algo : {DelayedAlgo::kMax, DelayedAlgo::kMostRecent}) {
      constexpr int64_t kTensors = 37;
      precision::DelayedScaling delayed;
      delayed.margin = 1;
      delayed.algo = algo;
      expect_same_on_gpu(
          [&] {
            Guarded amax = vector_of(kTensors, 30, 0.1, 3), scale = vector_of(kTensors, 31, 1, 9);
            amax.set(0, 3, 0);
            amax.set(0, 4, std::nan(""));
            amax.set(0, 5, HUGE_VAL);
            return list(filled({Dtype::kF32, kTensors, steps, 3}, 32, 0, 3), std::move(scale),
                        std::move(amax), vector_of(kTensors, 33, 400, 500), vector_of(1, 34, 1, 2));
          },
          [&](const Tensors& t) {
            ops::cpu::update_delayed_scales(t[0], t[1], t[2], t[3], t[4], delayed);
          },
          [&](const Tensors& t, CudaContext& c) {
            cuda::update_delayed_scales(t[0], t[1], t[2], t[3], t[4], delayed, c);
          },
          "update_delayed_scales");
    }
  }
}

}  // namespace
}  // namespace qstep::test
