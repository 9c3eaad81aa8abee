#include "trainer/model/head.h"

#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/trainer/step_testing.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kTokens = 23;

struct HeadResult {
  std::vector<double> loss, dy, dw;
};

// Loss and gradients of one head whose logits are computed `chunk_rows` rows at a time; the
// gradients start from `before`.
HeadResult run(int64_t chunk_rows, ops::Accumulate accumulate) {
  const ModelConfig model = tiny_model();
  const auto ops = ops::make_cpu_ops();
  test::Random random(110);
  using test::Dtype;
  test::Guarded weight(Dtype::kF32, model.padded_vocab(), model.width);
  test::Guarded dw(Dtype::kF32, model.padded_vocab(), model.width);
  test::Guarded y(Dtype::kF32, kTokens, model.width), dy(Dtype::kF32, kTokens, model.width);
  test::Guarded logits(Dtype::kF32, chunk_rows, model.padded_vocab());
  test::Guarded loss(Dtype::kF32, 1, kTokens), targets(Dtype::kI32, 1, kTokens);
  weight.fill(random, -1, 1);
  y.fill(random, -1, 1);
  dw.fill(random, -1, 1);
  for (int64_t n = 0; n < kTokens; ++n) {
    targets.set(0, n, static_cast<double>(random.integer(0, model.vocab_size - 1)));
  }
  Timeline timer;
  timer.start();
  TensorParallel alone;
  Head head(model, weight, {logits.tensor(), {}, {}}, alone);
  head.forward_backward(*ops, loss, dy, dw, y, targets, 0.5f, accumulate, timer);
  for (const test::Guarded* x : {&weight, &dw, &y, &dy, &logits, &loss}) {
    x->expect_guards_intact("head");
  }
  const HeadResult result{loss.values(), dy.values(), dw.values()};
  head.forward(*ops, loss, y, targets);
  EXPECT_EQ(result.loss, loss.values()) << "forward alone gives another loss";
  return result;
}

// Logits of all rows at once, or in chunks with a shorter one at the end: equal up to the order of
// at most kTokens + 20 terms of size one.
TEST(Head, ChunksMakeTheWhole) {
  constexpr test::Bound kBound{0, 43 * test::kF32Roundoff * 4};
  for (const ops::Accumulate accumulate : {ops::Accumulate::kNo, ops::Accumulate::kYes}) {
    const HeadResult whole = run(kTokens, accumulate);
    for (const int64_t rows : {1, 5, 16, 22}) {
      const HeadResult chunks = run(rows, accumulate);
      test::expect_within(whole.loss, chunks.loss, kBound, "loss");
      test::expect_within(whole.dy, chunks.dy, kBound, "dy");
      test::expect_within(whole.dw, chunks.dw, kBound, "dw");
    }
  }
}

TEST(Head, ChunksAreEqualPartsWithinTheLimit) {
  ModelConfig model = tiny_model();
  EXPECT_EQ(kTokens,
            head_chunk_rows(model.padded_vocab(), kTokens, ops::Dtype::kF32));  // all in one
  model.vocab_size = 50257;
  for (const ops::Dtype dtype : {ops::Dtype::kF32, ops::Dtype::kBf16}) {
    for (const int64_t n : {1, 15, 16, 17, 667, 668, 1024, 8192, 100000}) {
      const int64_t rows = head_chunk_rows(model.padded_vocab(), n, dtype);
      ASSERT_GE(rows, 1);
      ASSERT_LE(rows, n);
      const int64_t bytes = rows * model.padded_vocab() * ops::size_bytes(dtype);
      EXPECT_LE(bytes, (int64_t{128} << 20) + 16 * model.padded_vocab() * 4) << n;
      const int64_t n_chunks = (n + rows - 1) / rows;
      EXPECT_GT(16 + rows, (n + n_chunks - 1) / n_chunks) << n;  // no chunk far above the others
    }
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
