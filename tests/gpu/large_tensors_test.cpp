// Tensors of more than 2^31 elements: where the rows of what goes in repeat, those of what comes
// out do, and one period of them is the result for a small tensor, which other tests prove. On a
// GPU; and small on the CPU, so that these tests have run where there is none.
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "ops/cuda/cuda_context.h"
#include "ops/ops.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::Direction;
using ops::Ops;

enum class Place : uint8_t { kGpu, kCpu };

constexpr int64_t kPeriod = 37;  // rows; divides no power of two
constexpr double kPoison = std::numeric_limits<double>::quiet_NaN();

// A matrix of a case, [rows, cols]: random numbers, or NaNs where `high` is one.
struct Matrix {
  Dtype dtype;
  int64_t cols;
  double low = -2, high = 2;
};
Matrix poisoned(Dtype dtype, int64_t cols) { return {dtype, cols, kPoison, kPoison}; }

class LargeTensors : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    if (GetParam() == Place::kCpu) {
      ops_ = ops::make_cpu_ops();
      return;
    }
    std::string why;
    ops_ = ops::make_cuda_ops(why);
    if (ops_ == nullptr) GTEST_SKIP() << "needs an NVIDIA GPU: " << why;
    // The other tests of a GPU run beside these (scripts/gpu_check.sh).
    size_t free = 0, total = 0;
    ops::cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    if (total < size_t{72} << 30) GTEST_SKIP() << "needs a GPU with 72 GiB";
  }

  // So many rows that a matrix of `cols` columns has more elements than an int32 counts.
  int64_t n_rows(int64_t cols) const {
    const int64_t elements = GetParam() == Place::kGpu ? (int64_t{1} << 31) + 1 : 20'000;
    return (elements / cols / kPeriod + 2) * kPeriod;
  }

  // A vector that both sizes share.
  Tensor vector(Dtype dtype, int64_t n, uint64_t seed) {
    return rows_of({dtype, n, 0.5, 1.5}, 1, seed);
  }

  // op(tensors, rows) for one period and for n_rows(cols): each of the first `n_outputs` matrices
  // repeats what it is for one period; where `bound` is positive within that, relative and
  // absolute, otherwise bit by bit.
  template <class Op>
  void expect_repeats(int64_t cols, const std::vector<Matrix>& matrices, size_t n_outputs,
                      const Op& op, double bound = 0) {
    const auto run = [&](int64_t rows) {
      std::vector<Tensor> tensors;
      for (size_t i = 0; i < matrices.size(); ++i) {
        tensors.push_back(rows_of(matrices[i], rows, 10 + i));
      }
      op(tensors, rows);
      return tensors;
    };
    const std::vector<Tensor> small = run(kPeriod), large = run(n_rows(cols));
    for (size_t i = 0; i < n_outputs; ++i) compare(small[i], large[i], i, bound);
  }

 private:
  // Row r is row r % kPeriod of a random matrix.
  Tensor rows_of(const Matrix& m, int64_t rows, uint64_t seed) {
    const int64_t first = std::min(rows, kPeriod);
    Guarded values(m.dtype, first, m.cols);
    if (m.dtype == Dtype::kI32) {
      Random random(seed);
      for (int64_t r = 0; r < first; ++r) {
        for (int64_t c = 0; c < m.cols; ++c) {
          values.set(r, c,
                     static_cast<double>(random.integer(static_cast<int64_t>(m.low),
                                                        static_cast<int64_t>(m.high))));
        }
      }
    } else if (m.high == m.high) {
      Random random(seed);
      values.fill(random, m.low, m.high);
    }  // otherwise NaNs
    buffers_.push_back(ops_->allocate(rows * m.cols * size_bytes(m.dtype)));
    const Tensor all = ops::matrix(buffers_.back().data(), m.dtype, rows, m.cols);
    ops_->upload(all.row_range(0, first), values.tensor().data);
    if (m.dtype == Dtype::kI32) {
      for (int64_t n = first; n < rows; n += first) {
        ops_->upload(all.row_range(n, first), values.tensor().data);
      }
      return all;
    }
    for (int64_t n = first; n < rows; n *= 2) {
      const int64_t more = std::min(n, rows - n);
      ops_->cast(all.row_range(n, more), all.row_range(0, more));
    }
    return all;
  }

  Guarded period_at(const Tensor& x, int64_t row) {
    Guarded found(x.dtype, kPeriod, x.cols);
    ops_->download(found.tensor().data, x.row_range(row, kPeriod));
    return found;
  }

  // At both ends, in the middle, and where counts of elements and bytes pass 2^31 and 2^32.
  void compare(const Tensor& small, const Tensor& large, size_t index, double bound) {
    const Guarded expected = period_at(small, 0);
    const int64_t row_bytes = large.cols * size_bytes(large.dtype);
    for (const int64_t row : {int64_t{0}, large.rows / 2, (int64_t{1} << 31) / row_bytes,
                              (int64_t{1} << 32) / row_bytes, (int64_t{1} << 31) / large.cols,
                              (int64_t{1} << 32) / large.cols, large.rows}) {
      const int64_t at = std::clamp(row - row % kPeriod, int64_t{0}, large.rows - kPeriod);
      const std::string what = fmt::format("matrix {} from row {} of {} on", index, at, large.rows);
      const Guarded found = period_at(large, at);
      if (bound > 0) {
        expect_within(expected.values(), found.values(), {.relative = bound, .absolute = bound},
                      what);
      } else {
        expect_same_bits(expected, found, what);
      }
    }
    ASSERT_EQ(large.rows % kPeriod, 0);
  }

 protected:
  std::unique_ptr<Ops> ops_;
  std::vector<ops::Buffer> buffers_;
};
INSTANTIATE_TEST_SUITE_P(OnGpu, LargeTensors, testing::Values(Place::kGpu));
INSTANTIATE_TEST_SUITE_P(SmallOnCpu, LargeTensors, testing::Values(Place::kCpu));

constexpr Dtype kBf16 = Dtype::kBf16, kF32 = Dtype::kF32;

// Contiguous: one row of elements to the kernel.
TEST_P(LargeTensors, Add) {
  expect_repeats(1000, {poisoned(kBf16, 1000), {kBf16, 1000}, {kBf16, 1000}}, 1,
                 [&](const auto& t, int64_t) { ops_->add(t[0], t[1], t[2]); });
}

TEST_P(LargeTensors, RmsNorm) {
  constexpr int64_t C = 4096;
  const Tensor w = vector(kBf16, C, 1), dw = vector(kF32, C, 2);
  expect_repeats(
      C, {poisoned(kBf16, C), poisoned(kF32, 1), {kBf16, C}}, 2,
      [&](const auto& t, int64_t) { ops_->rmsnorm_forward(t[0], t[1], t[2], w, 1e-5f); });
  buffers_.resize(2);
  expect_repeats(C, {poisoned(kBf16, C), {kBf16, C}, {kBf16, C}, {kF32, 1, 0.5, 1.5}}, 1,
                 [&](const auto& t, int64_t) {
                   ops_->rmsnorm_backward(t[0], dw, t[1], t[2], w, t[3], Accumulate::kNo,
                                          Accumulate::kNo);
                 });
}

TEST_P(LargeTensors, Swiglu) {
  constexpr int64_t F = 1536;
  expect_repeats(2 * F, {poisoned(kBf16, F), poisoned(kBf16, 2 * F), {kBf16, F}, {kBf16, 2 * F}}, 2,
                 [&](const auto& t, int64_t) {
                   ops_->activation_forward(t[0], t[3], ops::Activation::kSwiglu);
                   ops_->activation_backward(t[1], t[2], t[3], ops::Activation::kSwiglu);
                 });
}

TEST_P(LargeTensors, QkNormAndRope) {
  constexpr int64_t H = 4, K = 2, D = 64, kWidth = (H + 2 * K) * D;
  const Tensor wq = vector(kBf16, D, 3), wk = vector(kBf16, D, 4);
  const Tensor table = vector(kF32, kPeriod * D, 5).reshape(kPeriod, D);
  expect_repeats(kWidth, {poisoned(kBf16, kWidth), poisoned(kF32, H + K), {kBf16, kWidth}}, 2,
                 [&](const auto& t, int64_t rows) {
                   const ops::AttentionShape shape{rows / kPeriod, kPeriod, H, K, D};
                   ops_->qk_norm_forward(t[0], t[1], t[2], wq, wk, shape, 1e-5f);
                   ops_->rope(t[0], table, shape, 0, Direction::kForward);
                 });
}

TEST_P(LargeTensors, EmbeddingForward) {
  constexpr int64_t C = 2048, V = 50;
  const Tensor wte = vector(kBf16, V * C, 6).reshape(V, C);
  expect_repeats(C, {poisoned(kBf16, C), {Dtype::kI32, 1, 0, V - 1}}, 1,
                 [&](const auto& t, int64_t rows) {
                   ops_->embedding_forward(t[0], t[1].reshape(1, rows), wte, 0, {}, kPeriod, 0);
                 });
}

TEST_P(LargeTensors, CrossEntropy) {
  constexpr int64_t V = 50'257, Vp = 50'304;
  expect_repeats(Vp, {{kBf16, Vp}, poisoned(kF32, 1), {Dtype::kI32, 1, 0, V - 1}}, 2,
                 [&](const auto& t, int64_t rows) {
                   ops_->cross_entropy_backward(t[1].reshape(1, rows), t[0], t[2].reshape(1, rows),
                                                V, 0.5f);
                 });
}

TEST_P(LargeTensors, AdamW) {
  constexpr int64_t C = 1024;
  const Tensor factor = vector(kF32, 1, 7);
  expect_repeats(C, {{kBf16, C}, {kF32, C}, {kF32, C}, {kF32, C, 0, 1}, {kF32, C}}, 4,
                 [&](const auto& t, int64_t rows) {
                   const auto flat = [&](size_t i) { return t[i].reshape(1, rows * C); };
                   ops_->adamw(flat(0), flat(1), flat(2), flat(3), flat(4), factor, {.lr = 1e-3f});
                 });
}

// d has more elements than an int32 counts. The library may choose another kernel for one period,
// so sums of 64 products of magnitudes up to 4 in another order, rounded once to BF16.
TEST_P(LargeTensors, Product) {
  constexpr int64_t k = 64, n = 1024;
  const Tensor b = vector(kBf16, n * k, 8).reshape(n, k);
  expect_repeats(
      n, {poisoned(kBf16, n), {kBf16, k}}, 1,
      [&](const auto& t, int64_t) {
        ops_->gemm(t[0], ops::rowwise(t[1]), ops::rowwise(b), 1.0f, Accumulate::kNo);
      },
      2 * kBf16Roundoff + 4 * k * k * kF32Roundoff);
}

TEST_P(LargeTensors, Quantizers) {
  constexpr int64_t C = 2048;
  using precision::QuantFormat;
  for (const QuantFormat format :
       {QuantFormat::kFp8E4m3, QuantFormat::kMxfp8E4m3, QuantFormat::kNvfp4}) {
    SCOPED_TRACE(precision::name(format));
    buffers_.clear();
    const bool scaled = format != QuantFormat::kMxfp8E4m3;
    const Tensor scale = scaled ? vector(kF32, 1, 9) : Tensor{};
    expect_repeats(C, {poisoned(kBf16, C), {kBf16, C}}, 1, [&](const auto& t, int64_t) {
      const ops::QuantizedTensor rowwise{.spec = precision::default_spec(format),
                                         .orientation = ops::Orientation::kRowwise,
                                         .values = t[0],
                                         .scale = scale,
                                         .tile_scales = {}};
      ops_->quantize(rowwise, {}, t[1], {});
    });
  }
}

}  // namespace
}  // namespace qstep::test
