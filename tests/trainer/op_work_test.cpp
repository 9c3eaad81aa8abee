// The work of operations against values worked out by hand, and of real steps against the model's.
#include "trainer/timing/op_work.h"

#include <gtest/gtest.h>

#include "ops/arena.h"
#include "tests/trainer/step_testing.h"
#include "trainer/bench/bench_ops.h"
#include "trainer/plan/step_work.h"

namespace qstep::trainer::testing {
namespace {

using ops::Accumulate;
using ops::Dtype;
using ops::Tensor;

// Views of no memory that is read.
char memory[2];
Tensor tensor(Dtype dtype, int64_t rows, int64_t cols, int place = 0) {
  return ops::matrix(memory + place, dtype, rows, cols);
}

TEST(OpWork, GemmByHand) {
  const Tensor d = tensor(Dtype::kBf16, 30, 20), bias = tensor(Dtype::kBf16, 1, 20);
  ops::Operand a = ops::rowwise(tensor(Dtype::kBf16, 30, 256));
  const ops::Operand b = ops::columnwise(tensor(Dtype::kBf16, 256, 20));
  const OpWork once = gemm_work(d, a, b, Accumulate::kNo, {});
  EXPECT_EQ(once.flops, 2.0 * 30 * 20 * 256);
  EXPECT_EQ(once.bytes, 2.0 * (30 * 256 + 20 * 256 + 30 * 20));
  EXPECT_EQ(once.type, Dtype::kBf16);
  EXPECT_EQ(gemm_work(d, a, b, Accumulate::kYes, bias).bytes, once.bytes + 2.0 * (600 + 20));
  float scales[60];
  a.tile_scales = scales;
  a.tile_rows = 1;
  a.tile_k = 128;
  EXPECT_EQ(gemm_work(d, a, b, Accumulate::kNo, {}).bytes, once.bytes + 4.0 * 30 * 2);
}

TEST(OpWork, AQuantizerReadsOnceAndWritesWhatItMakes) {
  ops::Arena measure;
  const auto spec = precision::default_spec(precision::QuantFormat::kNvfp4);
  const Tensor x = tensor(Dtype::kBf16, 64, 32);
  const auto laid_out = [&](ops::Orientation orientation, int place) {
    ops::QuantizedTensor q = ops::lay_out_quantized(measure, "test", spec, orientation, 64, 32);
    q.values.data = memory + place;
    if (q.scale) q.scale.data = memory;
    return q;
  };
  const ops::QuantizedTensor row = laid_out(ops::Orientation::kRowwise, 0);
  const ops::QuantizedTensor shared = laid_out(ops::Orientation::kColumnwise, 0);
  const ops::QuantizedTensor own = laid_out(ops::Orientation::kColumnwise, 1);
  const double size = 2.0 * 64 * 32, scale = row.scale ? 4 : 0;
  EXPECT_EQ(quantize_work(row, {}, x).bytes, 2 * size + scale);
  EXPECT_EQ(quantize_work(row, shared, x).bytes, 2 * size + 2 * scale);
  EXPECT_EQ(quantize_work(row, own, x).bytes, 3 * size + 2 * scale);
  EXPECT_EQ(quantize_work(row, own, x).kind, precision::describe(spec));
}

// What a GPU's matrix units read takes the place of decoded values.
TEST(OpWork, CodesAndTheirScales) {
  ops::Arena measure;
  const auto spec = precision::default_spec(precision::QuantFormat::kNvfp4);
  const Tensor x = tensor(Dtype::kBf16, 128, 64);
  ops::QuantizedTensor q = ops::lay_out_quantized(measure, "test", spec, ops::Orientation::kRowwise,
                                                  128, 64, {.values = false, .codes = true});
  q.codes.data = q.block_scales.data = q.scale.data = memory;
  const double codes = 128 * 64 / 2, scales = 128 * 4;
  EXPECT_EQ(quantize_work(q, {}, x).bytes, 2.0 * 128 * 64 + codes + scales + 4);
  const Tensor d = tensor(Dtype::kBf16, 128, 128);
  const OpWork work = gemm_work(d, operand(q), operand(q), Accumulate::kNo, {});
  EXPECT_EQ(work.bytes, 2.0 * 128 * 128 + 2 * (codes + scales));
  EXPECT_EQ(work.flops, 2.0 * 128 * 128 * 64);
}

TEST(OpWork, AttentionByHand) {
  const ops::AttentionShape shape{
      .batch = 2, .seq_len = 8, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16};
  const Tensor qkv = tensor(Dtype::kF32, 16, 128), o = tensor(Dtype::kF32, 16, 64);
  const Tensor lse = tensor(Dtype::kF32, 8, 8);
  const OpWork forward = attention_forward_work(o, lse, qkv, shape);
  // Two products of 16 multiply-adds for each of the 36 pairs of each of 8 heads.
  EXPECT_EQ(forward.flops, 2.0 * 2 * 16 * 36 * 8);
  EXPECT_EQ(forward.bytes, 4.0 * (16 * 128 + 16 * 64 + 64));
  const OpWork backward = attention_backward_work(qkv, o, qkv, o, lse, shape);
  EXPECT_EQ(backward.flops, 2 * forward.flops);
  EXPECT_EQ(backward.bytes, forward.bytes + 4.0 * (16 * 128 + 16 * 64));
  // Row by row behind a cache: the same pairs.
  double cached = 0;
  for (int64_t position = 0; position < 8; ++position) {
    ops::AttentionShape one = shape;
    one.batch = one.seq_len = 1;
    cached += 2 * attention_cached_work(o, qkv.row_range(0, 1), one, position).flops;
  }
  EXPECT_EQ(cached, forward.flops);
}

TEST(OpWork, OfTheRest) {
  const Tensor x = tensor(Dtype::kBf16, 6, 10), g = tensor(Dtype::kF32, 1, 10);
  EXPECT_EQ(passes({x, x, g, Tensor()}).bytes, 2 * 120 + 40);
  EXPECT_EQ(gradient(g, Accumulate::kNo).bytes, 40);
  EXPECT_EQ(gradient(g, Accumulate::kYes).bytes, 80);
  // Six tokens of a table of four rows read no more than all of it, of a larger one six.
  const Tensor tokens = tensor(Dtype::kI32, 1, 6);
  const auto forward = [&](int64_t rows) {
    return embedding_forward_work(x, tokens, tensor(Dtype::kBf16, rows, 10), {}, 6).bytes;
  };
  EXPECT_EQ(forward(4), 120 + 24 + 4 * 20);
  EXPECT_EQ(forward(100), 120 + 24 + 6 * 20);
  const Tensor w = tensor(Dtype::kBf16, 1, 10, 1);
  EXPECT_EQ(adamw_work(w, g, g, g, g).bytes, 10 * (28 + 2));
  EXPECT_EQ(adamw_work(g, g, g, g, g).bytes, 10 * 28);
}

Config config_of(const std::string& recipe) {
  return load_model_words({"llama-1m", "precision.recipe=" + recipe, "model.vocab_size=128",
                           "train.seq_len=32", "train.micro_batch=2", "train.global_batch=4",
                           "timing.level=ops", "parallel.reduction=rank"})
      .config;
}

// One step of a real trainer.
struct LoggedStep {
  explicit LoggedStep(const Config& config, bool logs = true) : trainer(*ops, config) {
    if (logs) trainer.log_work(&log);
    FixedBatches batches(
        {random_batch(config.model, 2, 32, 61), random_batch(config.model, 2, 32, 62)});
    trainer.step(batches, 1e-3, 1);
  }
  std::unique_ptr<ops::Ops> ops = ops::make_cpu_ops();
  Trainer trainer;
  WorkLog log;
};

// Padded rows of the vocabulary there are none of: the flops of all calls are the model's.
TEST(OpWork, CallsOfAStepAddUpToTheModelsFlops) {
  for (const char* recipe : {"fp32", "bf16", "nvfp4"}) {
    const Config config = config_of(recipe);
    const LoggedStep step(config);
    double flops = 0;
    std::vector<bool> logged(step.trainer.timeline().spans().size());
    for (const LoggedWork& call : step.log) {
      flops += call.work.flops;
      logged[call.span] = true;
    }
    EXPECT_DOUBLE_EQ(flops, step_work(config, 1).causal_flops) << recipe;
    for (size_t i = 0; i < logged.size(); ++i) {
      const TimeSpan& span = step.trainer.timeline().spans()[i];
      EXPECT_EQ(logged[i], span.call != "wait") << span.call;
    }
  }
}

TEST(OpWork, NothingIsLoggedUnlessAskedFor) {
  EXPECT_TRUE(LoggedStep(config_of("bf16"), false).log.empty());
}

TEST(BenchOps, CallsThatDoTheSameAreARow) {
  const Config config = config_of("nvfp4");
  const LoggedStep step(config);
  const std::vector<OpRow> rows = op_rows(step.trainer.timeline().spans(), step.log);
  double ms = 0;
  int64_t calls = 0, quantized = 0, qkv = 0;
  for (const OpRow& row : rows) {
    ms += row.ms;
    calls += row.calls;
    if (row.op == "quantize") quantized += row.calls;
    if (row.op == "gemm qkv fprop") qkv += row.calls;
    if (row.op == "adamw") {
      EXPECT_EQ(row.work.bytes, 30.0 * static_cast<double>(n_parameters(config.model)));
    }
  }
  EXPECT_EQ(static_cast<size_t>(calls), step.log.size());
  EXPECT_EQ(qkv, 2 * config.model.n_layers);  // micro-batches
  EXPECT_GT(quantized, 0);
  const TimeRange all = step.trainer.timeline().step();
  EXPECT_LE(ms, 1e-6 * static_cast<double>(all.length()));
}

TEST(BenchOps, TheLongerOfFlopsAndBytesBounds) {
  PeakRates peak;
  peak.bf16_gemm_flops_per_s = 2e9;
  peak.fp32_gemm_flops_per_s = 1e9;
  peak.triad_bytes_per_s = 1e6;
  MachineModel machine = measured_machine(peak, "a processor", 1);
  const auto bound = [&](OpWork work, ProductFormat format = ProductFormat::kFp32) {
    std::vector<OpRow> rows(1);
    rows[0].ms = 8;
    rows[0].work = work;
    rows[0].format = format;
    set_bounds(rows, machine);
    return rows[0];
  };
  const OpWork product{.flops = 4e6, .bytes = 1e3, .type = Dtype::kBf16, .kind = {}};
  OpRow row = bound(product, ProductFormat::kBf16);
  EXPECT_EQ(row.bound, OpBound::kFlops);
  EXPECT_DOUBLE_EQ(row.bound_ms, 2);
  EXPECT_DOUBLE_EQ(row.lost_ms(), 6);
  EXPECT_DOUBLE_EQ(row.share(), 0.25);
  row = bound({.flops = 4e6, .bytes = 1e3, .type = Dtype::kF32, .kind = {}});
  EXPECT_DOUBLE_EQ(row.bound_ms, 4);
  row = bound({.flops = 0, .bytes = 3e3, .type = Dtype::kF32, .kind = {}});
  EXPECT_EQ(row.bound, OpBound::kBytes);
  EXPECT_DOUBLE_EQ(row.bound_ms, 3);

  // A GPU's native products are held against the peak of their format; of a GPU that nobody knows
  // against nothing.
  machine = machine_model("b200");
  EXPECT_DOUBLE_EQ(bound(product, ProductFormat::kNvfp4).bound_ms, 1e3 * 4e6 / 9e15);
  EXPECT_DOUBLE_EQ(bound(product, ProductFormat::kBf16).bound_ms, 1e3 * 4e6 / 2.25e15);
  machine = {};
  EXPECT_EQ(bound(product, ProductFormat::kBf16).bound_ms, 0);
}

}  // namespace
}  // namespace qstep::trainer::testing
