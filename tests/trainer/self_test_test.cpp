#include "trainer/quantizers/self_test.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <filesystem>
#include <set>

#include "tests/support/fenced_ops.h"
#include "tests/support/quant_reference.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/small_store.h"
#include "trainer/config/recipe_file.h"
#include "trainer/quantizers/host_tensors.h"
#include "trainer/quantizers/self_test_run.h"
#include "trainer/run/run_training.h"

namespace qstep::trainer::testing {
namespace {

using ops::Dtype;
using ops::Orientation;
using ops::QuantizedTensor;
using precision::QuantSpec;
using precision::Recipe;
using precision::Source;
namespace reference = test::reference;

std::vector<SelfTestCase> cases_of_every_recipe() {
  std::vector<SelfTestCase> all;
  for (const std::string_view name : recipe_names()) {
    for (const SelfTestCase& test : self_test_cases(load_recipe(std::string(name)))) {
      if (std::find(all.begin(), all.end(), test) == all.end()) all.push_back(test);
    }
  }
  return all;
}

// What training calls.
void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
              const ops::Tensor& x, const ops::QuantCall& call) {
  static const std::unique_ptr<ops::Ops> ops = ops::make_cpu_ops();
  ops->quantize(rowwise, columnwise, x, call);
}

QuantizeFunction spoiled(const std::function<void(const QuantizedTensor&)>& spoil) {
  return [=](const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
             const ops::Tensor& x, const ops::QuantCall& call) {
    quantize(rowwise, columnwise, x, call);
    spoil(rowwise ? rowwise : columnwise);
  };
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << '"' << part << "\" not in: " << text;
}

// ---- the stored checksums -------------------------------------------------------------------

// By the tests' own quantizers, which share nothing with the product.
std::string reference_checksum(const SelfTestCase& test) {
  const reference::Quantized q = reference::quantize(self_test_source(), kSelfTestRows,
                                                     kSelfTestCols, test.spec, test.orientation,
                                                     {.random = self_test_random(),
                                                      .dtype = Dtype::kBf16,
                                                      .delayed_scale = kSelfTestDelayedScale});
  ops::EncodedTensor e;
  e.codes = q.codes;
  if (!is_fp8_format(test.spec.format)) {
    for (const reference::BlockScale& block : q.blocks) e.block_scales.push_back(block.code);
  }
  e.tile_scales = q.tile_scales;
  e.scale = q.scale;
  return self_test_checksum(e);
}

std::string line_of(std::string_view spec, Orientation orientation, std::string_view checksum) {
  return fmt::format("    GoldenChecksum{{\"{}\", {}, \"{}\"}},\n", spec,
                     orientation == Orientation::kRowwise ? "kRow" : "kColumn", checksum);
}

TEST(SelfTest, TheStoredChecksumsAreTheReferences) {
  std::set<std::string> lines;
  for (const SelfTestCase& test : cases_of_every_recipe()) {
    if (test.spec.source == Source::kForward || test.together) continue;
    lines.insert(line_of(describe(test), test.orientation, reference_checksum(test)));
  }
  std::string expected, stored;
  for (const std::string& line : lines) expected += line;
  for (const GoldenChecksum& g : golden_checksums()) {
    stored += line_of(g.spec, g.orientation, g.xxh3_128);
  }
  EXPECT_EQ(expected, stored) << "trainer/quantizers/self_test_golden.cpp must list:\n" << expected;
}

TEST(SelfTest, TheInputHoldsWhatQuantizersTripOver) {
  const std::vector<float> x = self_test_source();
  int zeros = 0, negative_zeros = 0, subnormal = 0;
  float largest = 0;
  for (const float v : x) {
    EXPECT_TRUE(std::isfinite(v));
    EXPECT_EQ(precision::to_float(precision::to_bf16(v)), v);
    if (v == 0 && !std::signbit(v)) ++zeros;
    if (v == 0 && std::signbit(v)) ++negative_zeros;
    if (v != 0 && std::fabs(v) < 0x1p-126f) ++subnormal;
    largest = std::max(largest, std::fabs(v));
  }
  EXPECT_GT(zeros, 64 * 64);
  EXPECT_GT(negative_zeros, 64 * 64);
  EXPECT_GT(subnormal, 10);
  EXPECT_EQ(largest, 320.0f);
}

// ---- which quantizers -----------------------------------------------------------------------

TEST(SelfTest, EveryQuantizerOfARecipeOnce) {
  Recipe recipe;
  EXPECT_TRUE(self_test_cases(recipe).empty());
  const QuantSpec nvfp4 = precision::default_spec(precision::QuantFormat::kNvfp4);
  const QuantSpec fp8 = precision::default_spec(precision::QuantFormat::kFp8E4m3);
  QuantSpec of_forward = nvfp4;
  of_forward.source = Source::kForward;
  using precision::OperandSlot;
  recipe.operands[OperandSlot::kXFprop] = nvfp4;
  recipe.operands[OperandSlot::kWFprop] = nvfp4;
  recipe.operands[OperandSlot::kXWgrad] = of_forward;
  precision::LayerOverride layer;
  layer.given[static_cast<size_t>(OperandSlot::kXFprop)] = true;
  layer.operands[OperandSlot::kXFprop] = fp8;
  recipe.overrides.push_back(layer);
  precision::RecipeSwitch later;
  later.given[static_cast<size_t>(OperandSlot::kDyDgrad)] = true;
  later.operands[OperandSlot::kDyDgrad] = fp8;
  recipe.switches.push_back(later);
  recipe.operands[OperandSlot::kDyWgrad] = nvfp4;
  EXPECT_EQ(self_test_cases(recipe),
            (std::vector<SelfTestCase>{{nvfp4, Orientation::kRowwise},
                                       {fp8, Orientation::kRowwise},
                                       {nvfp4, Orientation::kColumnwise},
                                       {of_forward, Orientation::kColumnwise, nvfp4},
                                       {of_forward, Orientation::kColumnwise, fp8},
                                       {nvfp4, Orientation::kColumnwise, fp8, true}}));
}

TEST(SelfTest, EveryRecipePasses) {
  for (const SelfTestCase& test : cases_of_every_recipe()) {
    const SelfTestResult result = run_self_test(test, quantize);
    EXPECT_EQ(result.failure, "") << describe(test);
    EXPECT_EQ(result.elements, kSelfTestRows * kSelfTestCols);
    EXPECT_EQ(result.golden, test.spec.source != Source::kForward && !test.together)
        << describe(test);
  }
}

// A fault that only one call for both operands of a tensor has.
TEST(SelfTest, BothOperandsOfATensorInOneCall) {
  int shared = 0, apart = 0;
  for (const SelfTestCase& test : cases_of_every_recipe()) {
    if (!test.together) continue;
    const bool transposed = precision::transposable(test.rowwise, test.spec);
    (transposed ? shared : apart) += 1;
    for (const bool in_row : {true, false}) {
      const SelfTestResult result = run_self_test(
          test, [&](const auto& rowwise, const auto& columnwise, const auto& x, const auto& call) {
            quantize(rowwise, columnwise, x, call);
            ASSERT_TRUE(rowwise && columnwise);
            EXPECT_EQ(rowwise.values.data == columnwise.values.data, transposed);
            const QuantizedTensor& q = in_row ? rowwise : columnwise;
            q.values.template as<ops::Bf16>()[3 * q.values.ld + 17].bits ^= 1;
          });
      expect_contains(result.failure, in_row || transposed ? "rowwise decoded element [3, 17]"
                                                           : "decoded element [3, 17]");
    }
  }
  EXPECT_GT(shared, 0);
  EXPECT_GT(apart, 0);
}

// ---- faults ---------------------------------------------------------------------------------

TEST(SelfTest, OneWrongElementIsFoundAndNamed) {
  for (const SelfTestCase& test : cases_of_every_recipe()) {
    const SelfTestResult result = run_self_test(
        test, [&](const auto& rowwise, const auto& columnwise, const auto& x, const auto& call) {
          quantize(rowwise, columnwise, x, call);
          const QuantizedTensor& q =
              test.orientation == Orientation::kRowwise ? rowwise : columnwise;
          q.values.template as<ops::Bf16>()[3 * q.values.ld + 17].bits ^= 1;
        });
    expect_contains(result.failure, "decoded element [3, 17]: expected ");
    EXPECT_EQ(result.failure.find("differ"), std::string::npos) << result.failure;
  }
}

TEST(SelfTest, WrongScalesAndTileScales) {
  const auto with = [](const char* recipe, const auto& has) {
    for (const SelfTestCase& test : self_test_cases(load_recipe(recipe))) {
      if (has(test.spec) && test.spec.source == Source::kHighPrecision && !test.together) {
        return test;
      }
    }
    ADD_FAILURE() << recipe;
    return SelfTestCase{};
  };
  const SelfTestCase one =
      with("nvfp4", [](const QuantSpec& spec) { return has_tensor_scale(spec); });
  expect_contains(
      run_self_test(one, spoiled([](const QuantizedTensor& q) { *q.scale.as<float>() *= 2; }))
          .failure,
      "scale of the tensor [0, 0]: expected 320 (0x43A00000), found 640 (0x44200000)");
  const SelfTestCase tiles =
      with("tetrajet2", [](const QuantSpec& spec) { return ops::scale_tile(spec).k > 0; });
  expect_contains(run_self_test(tiles, spoiled([](const QuantizedTensor& q) {
                                  q.tile_scales.as<float>()[1] = 0;
                                }))
                      .failure,
                  "scale of the tile at [0, 1]: expected ");
}

TEST(SelfTest, AWrongChecksumRefusesThePlainComputation) {
  const SelfTestCase test{precision::default_spec(precision::QuantFormat::kNvfp4),
                          Orientation::kRowwise};
  const GoldenChecksum other{"nvfp4 1x16", Orientation::kRowwise,
                             "0123456789abcdef0123456789abcdef"};
  const SelfTestResult result = run_self_test(test, quantize, {&other, 1});
  expect_contains(result.failure,
                  "XXH3-128 of its codes and scales: expected 0123456789abcdef0123456789abcdef, "
                  "found ");
}

TEST(SelfTest, TheRefusalSaysWhatToDo) {
  const Recipe recipe = load_recipe("nvfp4");
  require_self_test(recipe, quantize);
  require_self_test(load_recipe("bf16"), [](const auto&...) { FAIL(); });
  try {
    require_self_test(recipe, spoiled([](const QuantizedTensor& q) {
                        for (int i = 0; i < 5; ++i) q.values.as<ops::Bf16>()[i].bits ^= 0x8000;
                      }));
    FAIL();
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), ops::ExitCode::kSelfTest);
    for (const char* part : {"the rowwise quantizer nvfp4 1x16 ", "[0, 0]: expected",
                             "5 of 81920 differ", "qstep selftest", "another machine"}) {
      expect_contains(error.what(), part);
    }
  }
}

// ---- other backends -------------------------------------------------------------------------

// In memory that the host cannot touch, as on a GPU.
TEST(SelfTest, ABackendWithMemoryOfItsOwn) {
  const std::vector<std::string> recipes{"nvfp4", "fp8-block", "tetrajet2", "nvfp4"};
  const std::vector<SelfTestCase> cases = self_test_cases(recipes);
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(std::count(cases.begin(), cases.end(), cases[i]), 1) << describe(cases[i]);
  }
  test::FencedOps ops;
  const DeviceSelfTest run = self_test_on("NVIDIA H200", cases, quantize_on_host(ops));
  EXPECT_EQ(run.n_passed(), cases.size());
  require_passed(run);
}

TEST(SelfTest, OneFlippedBitOfABackendIsNamedWithTheDevice) {
  test::FencedOps ops;
  const QuantizeFunction quantize = quantize_on_host(ops);
  const std::vector<SelfTestCase> cases = self_test_cases(load_recipe("nvfp4"));
  const QuantizeFunction flipped = [&](const QuantizedTensor& rowwise,
                                       const QuantizedTensor& columnwise, const ops::Tensor& x,
                                       const ops::QuantCall& call) {
    quantize(rowwise, columnwise, x, call);
    if (columnwise) columnwise.values.as<ops::Bf16>()[columnwise.values.size() - 1].bits ^= 1;
  };
  const DeviceSelfTest run = self_test_on("NVIDIA H200", cases, flipped);
  EXPECT_LT(run.n_passed(), cases.size());
  try {
    require_passed(run);
    FAIL();
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), ops::ExitCode::kSelfTest);
    for (const char* part : {"NVIDIA H200: self-test: the columnwise quantizer nvfp4 1x16",
                             "decoded element [127, 639]: expected "}) {
      expect_contains(error.what(), part);
    }
  }
}

TEST(SelfTest, AMachineWithoutAGpuSaysWhyItWasNotTested) {
  const std::vector<SelfTestCase> cases = self_test_cases(load_recipe("mxfp8"));
  const DeviceSelfTest run = self_test_gpu(cases);
  std::string why;
  if (ops::make_cuda_ops(why) != nullptr) GTEST_SKIP() << "needs a machine without an NVIDIA GPU";
  EXPECT_EQ(run.not_run, why);
  EXPECT_FALSE(why.empty());
  EXPECT_TRUE(run.rows.empty());
  require_passed(run);
}

#if defined(__SSE2__)
// A processor that flushes subnormal numbers to zero, as some builds set it at start-up: a run in
// FP4 refuses to start, one in BF16 does not ask.
TEST(SelfTest, TrainingRefusesFlushToZero) {
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  const TemporaryFolder folder;
  write_small_store(folder / "corpus.h5", 70);
  const std::vector<std::string> words{"data.train=" + (folder / "corpus.h5"),
                                       "run.dir=" + (folder / "run"),
                                       "run.threads=1",
                                       "model.n_layers=1",
                                       "model.width=32",
                                       "model.n_heads=2",
                                       "train.steps=1",
                                       "train.global_batch=1",
                                       "train.micro_batch=1",
                                       "train.seq_len=32",
                                       "precision.recipe=nvfp4-all-layers"};
  const Config config = load_config_words(words).config;
  const unsigned usual = _mm_getcsr();
  _mm_setcsr(usual | kFlushToZero | kDenormalsAreZero);
  std::string refused;
  try {
    run_training(config);
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), ops::ExitCode::kSelfTest) << error.what();
    refused = error.what();
  }
  _mm_setcsr(usual);
  expect_contains(refused, "self-test: the ");
  EXPECT_TRUE(std::filesystem::exists(folder / "run/exit_reason.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run/metrics.jsonl"));
}
#endif

}  // namespace
}  // namespace qstep::trainer::testing
