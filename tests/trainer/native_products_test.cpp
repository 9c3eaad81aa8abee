// A run whose backend multiplies codes: operands are stored as codes alone, and what is computed is
// what decoded values give. The backend stands for a GPU: its quantizers are a GPU's, thread by
// thread, its products decode the codes and are the CPU's.
#include "trainer/model/native_products.h"

#include <gtest/gtest.h>

#include <functional>

#include "ops/gemm/gemm_plan_key.h"
#include "tests/ops/quantize_host_launch.h"
#include "tests/support/test_name.h"
#include "tests/support/wrapped_ops.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/backend/emulation.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/generator.h"
#include "trainer/run/ledger.h"

namespace qstep::trainer::testing {
namespace {

using ops::CodeProduct;
using ops::Operand;
using ops::ScaleMode;
using ops::Tensor;
using precision::ElementFormat;
using precision::Gemm;

class CodeOps final : public test::WrappedOps {
 public:
  using Answer = std::function<bool(const CodeProduct&)>;
  explicit CodeOps(Answer answer = ops::documented) : answer_(std::move(answer)) {}

  std::string_view name() const override { return "codes"; }
  ops::Buffer allocate(int64_t bytes) override { return inner_->allocate(bytes); }
  bool multiplies_codes(const CodeProduct& product) override {
    asked.push_back(product);
    return answer_(product);
  }
  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const Tensor& x, const ops::QuantCall& call) override {
    ops::device::quantize_with(test::HostQuantizeLaunch(), rowwise, columnwise, x, call);
  }
  void gemm(const Tensor& d, const Operand& a, const Operand& b, float alpha,
            ops::Accumulate accumulate, const Tensor& bias) override {
    const bool native = a.codes != nullptr && b.codes != nullptr;
    ASSERT_TRUE(native || (a.data != nullptr && b.data != nullptr));
    ++(native ? n_native : n_decoded);
    const Decoded left(a), right(b);
    inner_->gemm(d, native ? left.operand : a, native ? right.operand : b, alpha, accumulate, bias);
  }

  std::vector<CodeProduct> asked;
  int n_native = 0, n_decoded = 0;

 private:
  // What codes stand for, in the layout that the values would have.
  struct Decoded {
    explicit Decoded(const Operand& x) : operand(x) {
      if (x.codes == nullptr) return;
      const int64_t lines = x.major == ops::Major::kK ? x.rows : x.k;
      memory.resize(static_cast<size_t>(lines * x.ld));
      for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t k = 0; k < x.k; ++k) {
          const int64_t at = x.major == ops::Major::kK ? r * x.ld + k : k * x.ld + r;
          memory[static_cast<size_t>(at)] = precision::to_bf16(code(x, r, k) * scale(x, r, k));
        }
      }
      operand.data = memory.data();
      operand.codes = nullptr;
    }
    static float code(const Operand& x, int64_t r, int64_t k) {
      const uint8_t* const row = x.codes + r * code_bytes(x.form, x.k);
      switch (x.form.element) {
        case ElementFormat::kE2m1:
          return precision::decode<ElementFormat::kE2m1>(
              static_cast<uint8_t>(row[k / 2] >> (k % 2 * 4) & 0xF));
        case ElementFormat::kE4m3:
          return precision::decode<ElementFormat::kE4m3>(row[k]);
        case ElementFormat::kE5m2:
          break;
      }
      return precision::decode<ElementFormat::kE5m2>(row[k]);
    }
    // Of blocks whose scales are powers of two, or E4M3.
    static float scale(const Operand& x, int64_t r, int64_t k) {
      const ScaleMode mode = x.form.scales;
      if (scale_block_k(mode) == 0) return 1.0f;
      const int64_t at = block_scale_offset(mode, r, k / scale_block_k(mode), x.rows, x.k);
      const auto byte = [&] { return static_cast<const uint8_t*>(x.block_scales)[at]; };
      if (mode == ScaleMode::kVec16) return precision::decode<ElementFormat::kE4m3>(byte());
      if (mode == ScaleMode::kVec32) return precision::e8m0_value<float>(uint32_t{byte()});
      return static_cast<const float*>(x.block_scales)[at];
    }
    Operand operand;
    std::vector<precision::Bf16> memory;
  };

  void run(std::string_view, const std::function<void()>& f) override { f(); }

  Answer answer_;
};

constexpr int64_t kSteps = 3;

std::vector<float> train(Trainer& trainer, QuantLedger* ledger = nullptr) {
  FixedBatches batches(learnable_batches(2 * kSteps, 900));
  std::vector<float> results;
  trainer.set_ledger(ledger);
  for (int64_t step = 1; step <= kSteps; ++step) {
    const StepResult result = trainer.step(batches, 3e-3, step);
    results.push_back(result.loss);
    results.push_back(result.grad_norm);
  }
  return results;
}

int64_t quantized_bytes(const Config& config, const NativeProducts& native) {
  int64_t bytes = 0;
  for (const MemoryRow& row : training_memory(config, 1, 0, native)) {
    if (row.owner == "quantized operands") bytes += row.bytes;
  }
  return bytes;
}

class CodesTrain : public ::testing::TestWithParam<const char*> {
 protected:
  Config config_ = recipe_config(load_recipe(GetParam()), 2, 2 * kSteps);
};
INSTANTIATE_TEST_SUITE_P(Recipes, CodesTrain,
                         ::testing::Values("fp8-current", "fp8-delayed", "fp8-block", "mxfp8",
                                           "nvfp4", "nvfp4-4over6"),
                         [](const auto& test) { return test::test_name(test.param); });

TEST_P(CodesTrain, WithTheBitsOfDecodedValuesAndWithoutTheirMemory) {
  const auto cpu = ops::make_cpu_ops();
  CodeOps codes;
  Trainer expected(*cpu, config_), found(codes, config_);
  NumericLedger ledger(plan_precision(config_));
  EXPECT_EQ(train(expected), train(found, &ledger));
  EXPECT_GT(codes.n_native, 0);
  for (const LedgerEntry& entry : ledger.entries()) {
    if (entry.micro_batches > 0) {
      EXPECT_TRUE(entry.native);
    }
  }
  FixedBatches batches(learnable_batches(1, 910));
  EXPECT_EQ(expected.evaluate(batches.next()), found.evaluate(batches.next()));
  EXPECT_FALSE(emulated(config_, codes));
  EXPECT_TRUE(emulated(config_, *cpu));
  const NativeProducts native(codes, config_.compute_dtype());
  EXPECT_LT(quantized_bytes(config_, native), quantized_bytes(config_, {}));
}

// A product that the library refuses is decoded, and the run is emulated whatever the others are.
TEST(NativeProducts, AreMixedWithDecodedOnes) {
  Config config = recipe_config(load_recipe("nvfp4"), 2, 2 * kSteps);
  const auto cpu = ops::make_cpu_ops();
  CodeOps codes([](const CodeProduct& p) { return p.out != ops::Dtype::kF32; });  // not wgrad
  Trainer expected(*cpu, config), found(codes, config);
  EXPECT_EQ(train(expected), train(found));
  EXPECT_GT(codes.n_native, 0);
  EXPECT_TRUE(emulated(config, codes));
  EXPECT_EQ("nvfp4 native", evaluation_text(config, codes));  // has no wgrad
}

// Passes of one size multiply codes, as the run did; those of generation decode.
TEST(NativeProducts, EvaluateACheckpointButDoNotGenerate) {
  const Config config = recipe_config(load_recipe("nvfp4"), 2, 2 * kSteps);
  const auto cpu = ops::make_cpu_ops();
  Trainer trainer(*cpu, config);
  train(trainer);
  const TemporaryFolder folder;
  CheckpointState state;
  state.step = kSteps;
  state.vocab_size = config.model.vocab_size;
  state.config_toml = to_toml(config);
  state.recipe_toml = to_toml(config.precision.loaded);
  save_checkpoint(folder.path(), state, named_tensors(trainer.shards(), trainer.parameters()), 0);

  CodeOps codes;
  FixedBatches batches(learnable_batches(1, 910));
  const MicroBatch batch = batches.next();
  const LoadedModel passes(codes, folder.path(), "", Passes::kMicroBatches);
  EXPECT_EQ(trainer.evaluate(batch), Evaluator(codes, passes).loss(batch));
  EXPECT_GT(codes.n_native, 0);
  EXPECT_EQ("nvfp4 native", passes.precision_text());
  EXPECT_EQ("bf16 native",
            LoadedModel(codes, folder.path(), "bf16", Passes::kMicroBatches).precision_text());

  codes.n_native = 0;
  const LoadedModel any_size(codes, folder.path(), "", Passes::kAnySize);
  EXPECT_EQ("nvfp4 emulated", any_size.precision_text());
  const auto text = [&](ops::Ops& ops, const LoadedModel& loaded) {
    return Generator(ops, loaded, 12, config.model.vocab_size)
        .generate(std::vector<int32_t>{3, 1, 4}, 8, {.temperature = 0}, -1,
                  [](int32_t) { return true; })
        .tokens;
  };
  EXPECT_EQ(text(*cpu, LoadedModel(*cpu, folder.path(), "")), text(codes, any_size));
  EXPECT_EQ(0, codes.n_native);
}

// A backward operand that is made from the forward one's values, which are there then.
TEST(NativeProducts, KeepValuesThatAnotherOperandIsMadeFrom) {
  for (const char* const name : {"quartet2", "tetrajet2"}) {
    Config config = recipe_config(load_recipe(name), 2, 2 * kSteps);
    const auto cpu = ops::make_cpu_ops();
    CodeOps codes;
    Trainer expected(*cpu, config), found(codes, config);
    EXPECT_EQ(train(expected), train(found)) << name;
  }
}

// As `qstep recipe check` says it, product by product.
TEST(NativeProducts, AreToldApartByLayerAndGemm) {
  Config config = recipe_config(load_recipe("fp8-current"), 1, 4);
  CodeOps codes([](const CodeProduct& p) { return p.out != ops::Dtype::kF32 && p.n > 128; });
  const NativeProducts native(codes, config.compute_dtype());
  const PrecisionPhase phase = plan_precision(config).phases.at(0);
  const auto emulates = [&](LinearKind kind, Gemm gemm) {
    const int64_t module = module_id(0, kind);
    return emulated(config, module, phase.tables[static_cast<size_t>(module)], gemm, codes, native);
  };
  const ModelConfig& m = config.model;
  ASSERT_GT(m.up_width(), 128);
  ASSERT_LE(m.width, 128);
  EXPECT_FALSE(emulates(LinearKind::kUp, Gemm::kFprop));
  EXPECT_TRUE(emulates(LinearKind::kUp, Gemm::kDgrad));  // n is the width
  EXPECT_TRUE(emulates(LinearKind::kUp, Gemm::kWgrad));
  EXPECT_TRUE(emulates(LinearKind::kAttnOut, Gemm::kFprop));
  // What nobody quantized is what it is.
  EXPECT_FALSE(emulated(config, 0, {}, Gemm::kWgrad, codes, native));
}

TEST(NativeProducts, AskForTheShapesOfARunOnce) {
  CodeOps codes;
  const NativeProducts native(codes, ops::Dtype::kBf16);
  const precision::OperandTable table = load_recipe("mxfp8").operands;
  const LinearShape shape{.out = 384, .in = 128};
  for (int turn = 0; turn < 2; ++turn) {
    for (const Gemm gemm : {Gemm::kFprop, Gemm::kDgrad, Gemm::kWgrad}) {
      EXPECT_TRUE(native.has(table, gemm, shape, 64));
    }
  }
  ASSERT_EQ(3u, codes.asked.size());
  const auto expect = [&](size_t i, int64_t m, int64_t n, int64_t k, ops::Dtype out) {
    const CodeProduct& p = codes.asked[i];
    EXPECT_EQ((std::array{m, n, k}), (std::array{p.m, p.n, p.k}));
    EXPECT_EQ(out, p.out);
    EXPECT_EQ(ScaleMode::kVec32, p.a.scales);
  };
  expect(0, 64, 384, 128, ops::Dtype::kBf16);
  expect(1, 64, 128, 384, ops::Dtype::kBf16);
  expect(2, 384, 128, 64, ops::Dtype::kF32);
  EXPECT_FALSE(NativeProducts().has(table, Gemm::kFprop, shape, 64));
  EXPECT_FALSE(native.has({}, Gemm::kFprop, shape, 64));
}

}  // namespace
}  // namespace qstep::trainer::testing
