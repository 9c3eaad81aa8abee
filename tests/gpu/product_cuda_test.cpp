// Products and attention of the CUDA backend against the CPU's.
#include <cmath>

#include "ops/attention/attention.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/gemm_cuda.h"
#include "tests/gpu/on_gpu.h"
#include "tests/ops/attention_reference.h"
#include "tests/ops/gemm_side.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::Major;

class ProductOnGpu : public OnGpu {
 protected:
  // product(gemm, tensors) with the GEMM of either side.
  template <class Product>
  void expect_same_products(const std::function<std::vector<Guarded>()>& make, Product&& product,
                            std::string_view what, const std::function<double(size_t)>& bound) {
    expect_same_on_gpu(
        make,
        [&](const Tensors& t) {
          ops::cpu::Gemm gemm;
          product(gemm, t);
        },
        [&](const Tensors& t, ops::CudaContext& context) {
          ops::cuda::Gemm gemm(context);
          product(gemm, t);
          cudaStreamSynchronize(context.stream());
        },
        what, bound);
  }
};
class AttentionOnGpu : public OnGpu {};

struct Shape {
  int64_t m, n, k, gap;
};
// One element, vectors, nothing a multiple of anything, what kernels with wide accesses take.
constexpr Shape kShapes[] = {{1, 1, 1, 0},     {1, 37, 19, 3},    {29, 1, 65, 0},
                             {33, 70, 129, 7}, {64, 48, 96, 0},   {256, 512, 384, 0},
                             {20, 24, 777, 1}, {130, 257, 64, 8}, {1024, 768, 2048, 0}};

ops::Operand operand(const Tensor& x, Major major) {
  return major == Major::kK ? ops::rowwise(x) : ops::columnwise(x);
}

TEST_F(ProductOnGpu, AgreesWithTheCpu) {
  for (const auto& [in, out] : {std::pair{Dtype::kF32, Dtype::kF32},
                                {Dtype::kBf16, Dtype::kBf16},
                                {Dtype::kBf16, Dtype::kF32}}) {
    for (const Shape& s : kShapes) {
      for (const auto& [a_major, b_major] : {std::pair{Major::kK, Major::kK},
                                             {Major::kK, Major::kRows},
                                             {Major::kRows, Major::kK},
                                             {Major::kRows, Major::kRows}}) {
        for (const auto& [mode, alpha, with_bias] : {std::tuple{Accumulate::kNo, 1.0f, false},
                                                     {Accumulate::kYes, -0.75f, false},
                                                     {Accumulate::kNo, 1.0f, true},
                                                     {Accumulate::kYes, 0.5f, true}}) {
          const std::string what =
              fmt::format("{}x{}x{} {}->{} majors {}{} alpha {} bias {}", s.m, s.n, s.k,
                          ops::name(in), ops::name(out), static_cast<int>(a_major),
                          static_cast<int>(b_major), alpha, with_bias);
          const auto make = [&, in = in, out = out, a_major = a_major, b_major = b_major] {
            Random random(31);
            std::vector<Guarded> all;
            const auto add = [&](Dtype dtype, int64_t rows, int64_t cols, int64_t gap) {
              all.emplace_back(dtype, rows, cols, gap).fill(random, -1, 1);
            };
            a_major == Major::kK ? add(in, s.m, s.k, s.gap) : add(in, s.k, s.m, s.gap);
            b_major == Major::kK ? add(in, s.n, s.k, s.gap) : add(in, s.k, s.n, s.gap);
            add(in, 1, s.n, 0);
            add(out, s.m, s.n, s.gap);
            return all;
          };
          const auto product = [&, a_major = a_major, b_major = b_major, mode = mode, alpha = alpha,
                                with_bias = with_bias](auto& gemm, const Tensors& t) {
            gemm(t[3], operand(t[0], a_major), operand(t[1], b_major), alpha, mode,
                 with_bias ? t[2] : Tensor{});
          };
          // Two orders of k + 2 additions of magnitudes of at most 1, each rounded; and one
          // rounding to BF16 that may fall the other way.
          const double sum = static_cast<double>(s.k) + 2;
          const double bound =
              4 * sum * sum * kF32Roundoff + (out == Dtype::kBf16 ? 2 * kBf16Roundoff : 0);
          expect_same_products(make, product, what, [&](size_t i) { return i == 3 ? bound : 0.0; });
        }
      }
    }
  }
}

// Factors in device memory, and tiles of k, multiply as on the CPU.
TEST_F(ProductOnGpu, FactorsOfQuantizedOperandsAgreeWithTheCpu) {
  constexpr int64_t m = 70, n = 130, k = 320;
  for (const int64_t tile_k : {0, 64, 128}) {
    const auto make = [&] {
      Random random(32);
      std::vector<Guarded> all;
      all.emplace_back(Dtype::kBf16, m, k).fill(random, -1, 1);
      all.emplace_back(Dtype::kBf16, n, k).fill(random, -1, 1);
      all.emplace_back(Dtype::kF32, 1, 2).fill(random, 0.5, 1.5);
      const int64_t tiles = tile_k == 0 ? 1 : (k + tile_k - 1) / tile_k;
      all.emplace_back(Dtype::kF32, m, tiles).fill(random, 0.5, 1.5);
      all.emplace_back(Dtype::kF32, m, n);
      return all;
    };
    const auto product = [&](auto& gemm, const Tensors& t) {
      ops::Operand a = ops::rowwise(t[0]), b = ops::rowwise(t[1]);
      a.scale = t[2].as<float>();
      b.scale = t[2].as<float>() + 1;
      b.scale_denominator = 2688.0f;
      if (tile_k > 0) {
        a.tile_scales = t[3].as<float>();
        a.tile_rows = 1;
        a.tile_k = tile_k;
      }
      gemm(t[4], a, b, 100.0f, Accumulate::kNo, {});
    };
    expect_same_products(make, product, fmt::format("tiles of {}", tile_k),
                         [&](size_t i) { return i == 4 ? 4.0 * k * k * kF32Roundoff : 0.0; });
  }
}

TEST_F(AttentionOnGpu, StaysWithinTheBoundsOfItsFormulas) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const ops::AttentionShape& shape : attention::kShapes) {
      SCOPED_TRACE(attention::describe(shape, dtype));
      Random random(33);
      Guarded qkv(dtype, shape.n_tokens(), shape.qkv_width(), 3);
      Guarded d_o(dtype, shape.n_tokens(), shape.q_width(), 5);
      qkv.fill(random, -1.5, 1.5);
      d_o.fill(random, -1.5, 1.5);
      Guarded o(dtype, shape.n_tokens(), shape.q_width(), 2);
      Guarded lse(Dtype::kF32, shape.batch * shape.n_heads, shape.seq_len, 1);
      Guarded dqkv(dtype, shape.n_tokens(), shape.qkv_width(), 7);
      DeviceCopy on_qkv(qkv), on_d_o(d_o), on_o(o), on_lse(lse), on_dqkv(dqkv);
      ops::CudaContext context;
      ops::cuda::attention_forward(on_o.tensor(), on_lse.tensor(), on_qkv.tensor(), shape, context);
      ops::cuda::attention_backward(on_dqkv.tensor(), on_d_o.tensor(), on_qkv.tensor(),
                                    on_o.tensor(), on_lse.tensor(), shape, context);
      ops::cuda_check(cudaStreamSynchronize(context.stream()), "attention");
      EXPECT_TRUE(on_o.download() && on_lse.download() && on_dqkv.download()) << "written around";
      const attention::Reference r = attention::reference(shape, qkv.values(), d_o.values(), dtype);
      attention::expect_bounded(r.o, o, r.o_bound, "o");
      attention::expect_bounded(r.lse, lse, r.lse_bound, "lse");
      attention::expect_bounded(r.dqkv, dqkv, r.dqkv_bound, "dqkv");
    }
  }
}

// Pieces of a sequence, as text is generated: each row within the bounds of one forward pass.
TEST_F(AttentionOnGpu, CachedStaysWithinTheBoundsOfForward) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const ops::AttentionShape& shape :
         {attention::make_shape(1, 150, 3, 3, 20), attention::make_shape(1, 290, 6, 2, 64),
          attention::make_shape(1, 20, 20, 1, 7)}) {
      SCOPED_TRACE(attention::describe(shape, dtype));
      Random random(34);
      Guarded qkv(dtype, shape.seq_len, shape.qkv_width(), 3);
      qkv.fill(random, -1.5, 1.5);
      Guarded k(dtype, shape.seq_len + 3, shape.kv_width(), 2),
          v(dtype, shape.seq_len + 3, shape.kv_width(), 4);
      Guarded o(dtype, shape.seq_len, shape.q_width(), 1);
      DeviceCopy on_qkv(qkv), on_k(k), on_v(v), on_o(o);
      ops::CudaContext context;
      int64_t position = 0;
      for (const int64_t n :
           {int64_t{11}, int64_t{1}, int64_t{1}, shape.seq_len - 14, int64_t{1}}) {
        ops::AttentionShape step = shape;
        step.seq_len = n;
        ops::cuda::attention_cached(on_o.tensor().row_range(position, n), on_k.tensor(),
                                    on_v.tensor(), on_qkv.tensor().row_range(position, n), step,
                                    position, context);
        position += n;
      }
      ops::cuda_check(cudaStreamSynchronize(context.stream()), "attention_cached");
      EXPECT_TRUE(on_o.download() && on_k.download() && on_v.download()) << "written around";
      Guarded d_o(dtype, shape.seq_len, shape.q_width());
      d_o.fill(0.0);
      const attention::Reference r = attention::reference(shape, qkv.values(), d_o.values(), dtype);
      attention::expect_bounded(r.o, o, r.o_bound, "o");
      for (int64_t t = 0; t < shape.seq_len; ++t) {
        for (int64_t d = 0; d < shape.kv_width(); ++d) {
          ASSERT_EQ(qkv.at(t, shape.q_width() + d), k.at(t, d));
          ASSERT_EQ(qkv.at(t, shape.q_width() + shape.kv_width() + d), v.at(t, d));
        }
      }
      EXPECT_TRUE(std::isnan(k.at(shape.seq_len, 0)) && std::isnan(v.at(shape.seq_len, 0)));
    }
  }
}

}  // namespace
}  // namespace qstep::test
