// Recorded calls on a GPU, as CUDA graphs: the bits of calls, at every moment; marks of the clock;
// whole steps.
#include <gtest/gtest.h>

#include <functional>

#include "ops/recorder.h"
#include "tests/support/test_name.h"
#include "tests/trainer/recipe_testing.h"

namespace qstep::trainer::testing {
namespace {

using ops::Moment;
using ops::Tensor;
using precision::OperandSlot;

class RecordedOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    gpu_ = ops::make_cuda_ops(why);
    if (gpu_ == nullptr) GTEST_SKIP() << "needs an NVIDIA GPU: " << why;
  }

  std::vector<std::byte> bytes_of(const Tensor& x) {
    std::vector<std::byte> bytes(static_cast<size_t>(x.bytes()));
    gpu_->download(bytes.data(), x);
    return bytes;
  }

  std::unique_ptr<ops::Recording> record(const std::function<void()>& calls) {
    const auto capture = gpu_->recorder()->begin();
    calls();
    return capture->end();
  }

  std::unique_ptr<ops::Ops> gpu_;
};

// What depends on the moment: stochastic rounding, signs of every step, AdamW.
class Work {
 public:
  static constexpr int64_t kRows = 192, kCols = 320, kElements = 5000;

  explicit Work(ops::Ops& gpu) : gpu_(gpu) {
    precision::QuantSpec spec =
        precision::resolved(load_recipe("nvfp4").operands)[OperandSlot::kDyWgrad];
    spec.rounding = precision::Rounding::kStochastic;
    spec.hadamard = 16;
    spec.signs = precision::Signs::kPerStep;
    ops::Arena measure;
    lay_out(measure, spec);
    buffer_ = gpu.allocate(measure.peak_bytes());
    ops::Arena place(buffer_);
    lay_out(place, spec);
    test::Random random(5);
    std::vector<float> values(static_cast<size_t>(std::max(kRows * kCols, kElements)));
    for (float& v : values) v = static_cast<float>(random.uniform(-3, 3));
    gpu.upload(source_, values.data());
    gpu.cast(x_, source_);
    for (const Tensor* t : {&master_, &m_, &gradient_}) gpu.upload(*t, values.data());
    const float one = 1;
    gpu.upload(factor_, &one);
  }

  void call(const Moment& moment) {
    ops::QuantRandom random;
    random.seed = 3;
    random.module = 7;
    random.slot = static_cast<uint32_t>(precision::LinearTensor::kDy);
    random.gemm_column = 2;
    ops::QuantCall call;
    call.random = at(random, moment);
    gpu_.quantize(row_, column_, x_, call);
    gpu_.adamw(w_, master_, m_, v_, gradient_, factor_, at(ops::AdamWParams{}, moment));
  }
  std::vector<Tensor> results() const { return {row_.values, column_.values, w_, m_, v_, master_}; }

 private:
  void lay_out(ops::Arena& arena, const precision::QuantSpec& spec) {
    source_ = arena.take("test", ops::Dtype::kF32, kRows, kCols);
    x_ = arena.take("test", ops::Dtype::kBf16, kRows, kCols);
    row_ = lay_out_quantized(arena, "test", spec, ops::Orientation::kRowwise, kRows, kCols);
    column_ = lay_out_quantized(arena, "test", spec, ops::Orientation::kColumnwise, kRows, kCols);
    w_ = arena.take("test", ops::Dtype::kBf16, 1, kElements);
    for (Tensor* t : {&master_, &m_, &v_, &gradient_}) {
      *t = arena.take("test", ops::Dtype::kF32, 1, kElements);
    }
    factor_ = arena.take("test", ops::Dtype::kF32, 1, 1);
  }

  ops::Ops& gpu_;
  ops::Buffer buffer_;
  Tensor source_, x_, w_, master_, m_, v_, gradient_, factor_;
  ops::QuantizedTensor row_, column_;
};

TEST_F(RecordedOnGpu, CallsHaveTheirBitsAtEveryMoment) {
  Work called(*gpu_), recorded(*gpu_);
  std::unique_ptr<ops::Recording> recording;
  for (uint32_t i = 1; i <= 5; ++i) {
    const Moment moment{
        .step = 10 * i, .micro_batch = i % 3, .lr = 0.01f / static_cast<float>(i), .t = i};
    called.call(moment);
    if (i == 1) {
      recorded.call(moment);
    } else if (recording == nullptr) {
      recording = record([&] { recorded.call(moment); });
    } else {
      ASSERT_TRUE(recording->valid());
      recording->run(moment);
    }
    const std::vector<Tensor> expected = called.results(), found = recorded.results();
    for (size_t t = 0; t < expected.size(); ++t) {
      EXPECT_TRUE(bytes_of(expected[t]) == bytes_of(found[t])) << "moment " << i << ", " << t;
    }
  }
}

TEST_F(RecordedOnGpu, MarksComeInOrderHoweverOftenTheyAreRun) {
  constexpr int64_t kBytes = 1 << 30, kMarks = 4;
  const ops::Buffer buffer = gpu_->allocate(kBytes);
  const Tensor x = ops::matrix(buffer.data(), ops::Dtype::kI32, 1, kBytes / 4);
  ops::DeviceClock& clock = *gpu_->clock();
  const auto calls = [&] {
    for (int i = 0; i < kMarks; ++i) {
      clock.mark();
      gpu_->zero(x);
    }
  };
  std::unique_ptr<ops::Recording> recording;
  for (int step = 0; step < 3; ++step) {
    clock.start();
    int64_t expected = 0;
    if (step == 0) {
      recording = record(calls);
      expected += kMarks;
    }
    for (int i = 0; i < 3; ++i, expected += kMarks) EXPECT_EQ(expected, recording->run({}));
    EXPECT_EQ(expected, clock.mark());
    std::vector<int64_t> times(static_cast<size_t>(expected + 1));
    clock.read(times);
    for (size_t i = 1; i < times.size(); ++i) {
      EXPECT_GE(times[i] - times[i - 1], 50'000) << i;  // 1 GiB at no more than 20 TB/s
    }
  }
}

TEST_F(RecordedOnGpu, NothingIsNoRecording) {
  EXPECT_EQ(nullptr, record([] {}));
}

// A capture that an error ends leaves the stream as it was.
TEST_F(RecordedOnGpu, CallsThatAreGivenUpAreNotMade) {
  Work given_up(*gpu_), called(*gpu_);
  for (Work* work : {&given_up, &called}) work->call({.step = 1});
  {
    const auto capture = gpu_->recorder()->begin();
    given_up.call({.step = 2});
  }
  const std::vector<Tensor> expected = called.results(), found = given_up.results();
  for (size_t t = 0; t < expected.size(); ++t) {
    EXPECT_TRUE(bytes_of(expected[t]) == bytes_of(found[t])) << t;
  }
}

// The order of many tokens takes more scratch memory than the quantizers' amaxes.
TEST_F(RecordedOnGpu, IsNotValidOnceItsMemoryHasMoved) {
  Work work(*gpu_);
  work.call({.step = 1});
  const auto recording = record([&] { work.call({.step = 2}); });
  EXPECT_TRUE(recording->valid());
  constexpr int64_t kTokens = 1 << 17;
  const ops::Buffer buffer = gpu_->allocate(kTokens * 8 + 4096);
  ops::Arena arena(buffer);
  const Tensor tokens = arena.take("test", ops::Dtype::kI32, 1, kTokens);
  const Tensor table = arena.take("test", ops::Dtype::kF32, 8, 2);
  const Tensor dx = arena.take("test", ops::Dtype::kBf16, kTokens, 2);
  gpu_->embedding_backward(table, 0, {}, dx, tokens, kTokens, ops::Accumulate::kNo);
  EXPECT_FALSE(recording->valid());
}

class StepsOnGpu : public RecordedOnGpu, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Recipes, StepsOnGpu,
                         ::testing::Values("fp32", "bf16", "fp8-delayed", "fp8-current",
                                           "fp8-block", "mxfp8", "nvfp4", "quartet2", "tetrajet2"),
                         [](const auto& test) { return test::test_name(test.param); });

TEST_P(StepsOnGpu, HaveTheSameBitsWithGraphs) {
  constexpr int64_t kMicros = 4, kSteps = 6;
  Config config = recipe_config(load_recipe(GetParam()), kMicros, kSteps);
  config.run.cuda_graphs = false;
  Trainer plain(*gpu_, config);
  config.run.cuda_graphs = true;
  Trainer recorded(*gpu_, config);
  FixedBatches batches(learnable_batches(kMicros * kSteps, 950));
  FixedBatches the_same(learnable_batches(kMicros * kSteps, 950));
  for (int64_t step = 1; step <= kSteps; ++step) {
    const double lr = 3e-3 / static_cast<double>(step);
    const StepResult expected = plain.step(batches, lr, step);
    const StepResult found = recorded.step(the_same, lr, step);
    EXPECT_EQ(expected.loss, found.loss) << step;
    EXPECT_EQ(expected.grad_norm, found.grad_norm) << step;
  }
  EXPECT_TRUE(bytes_of(plain.parameters().master.flat) ==
              bytes_of(recorded.parameters().master.flat));
}

}  // namespace
}  // namespace qstep::trainer::testing
