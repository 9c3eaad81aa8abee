// The numeric ledger: what it counts, that counting changes nothing, and its file.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/run/ledger_file.h"

namespace qstep::trainer::testing {
namespace {

using ops::QuantStats;
using precision::OperandSlot;
using precision::Recipe;

constexpr int kMicros = 2;

// NVFP4 in every layer but those of the first block.
Recipe ledger_recipe() {
  Recipe recipe = load_recipe("nvfp4");
  recipe.keep_first = {.n = 1};
  recipe.keep_last = {};
  recipe.keep.clear();
  return recipe;
}

// Three steps; the ledger hears of the last.
struct CountedRun {
  explicit CountedRun(bool counted, int threads = 2)
      : config(recipe_config(ledger_recipe(), kMicros, 8)),
        ops(ops::make_cpu_ops()),
        trainer(*ops, config),
        ledger(plan_precision(config)) {
    const int threads_before = omp_get_max_threads();
    omp_set_num_threads(threads);
    FixedBatches batches(learnable_batches(3 * kMicros, 61));
    for (int64_t step = 1; step <= 3; ++step) {
      if (step == 3) {
        const ops::Tensor w = weight();
        weights.resize(static_cast<size_t>(w.size()));
        for (int64_t i = 0; i < w.size(); ++i) {
          weights[static_cast<size_t>(i)] = precision::to_float(w.as<precision::Bf16>()[i]);
        }
        ledger.begin_step(step);
        if (counted) trainer.set_ledger(&ledger);
      }
      trainer.step(batches, 1e-3, step);
    }
    omp_set_num_threads(threads_before);
  }
  // Of the first layer that is quantized.
  ops::Tensor weight() { return trainer.parameters().weight.views.blocks[1].qkv; }
  const LedgerEntry& entry(int64_t module, OperandSlot slot) const {
    return ledger.entries()[static_cast<size_t>(module * precision::kOperandSlots +
                                                static_cast<int64_t>(slot))];
  }

  Config config;
  std::unique_ptr<ops::Ops> ops;
  Trainer trainer;
  NumericLedger ledger;
  std::vector<float> weights;  // that the counted step computed with
};

constexpr int64_t kCountedModule = kLinearsPerBlock;  // "blocks.1.qkv"

TEST(Ledger, CountsWhatTheOperandsLost) {
  CountedRun run(true);
  const LedgerEntry& entry = run.entry(kCountedModule, OperandSlot::kWFprop);
  EXPECT_EQ("nvfp4 16x16", *entry.format);

  // The same operand made again, and counted element by element.
  const LinearShape shape = linear_shape(recipe_model(), kCountedModule);
  ops::Buffer memory = run.ops->allocate(int64_t{1} << 20);
  ops::Arena arena(memory);
  const precision::QuantSpec spec = run.config.precision.loaded.operands[OperandSlot::kWFprop];
  const ops::QuantizedTensor q =
      ops::lay_out_quantized(arena, "test", spec, ops::Orientation::kRowwise, shape.out, shape.in);
  run.ops->quantize(q, {}, ops::matrix(run.weights.data(), ops::Dtype::kF32, shape.out, shape.in),
                    {});
  const float factor = *q.scale.as<float>() / ops::scale_denominator(spec);
  QuantStats expected;
  for (size_t i = 0; i < run.weights.size(); ++i) {
    const float v = run.weights[i],
                decoded = precision::to_float(q.values.as<precision::Bf16>()[i]);
    const double error = static_cast<double>(v) - static_cast<double>(decoded * factor);
    expected.amax = std::max(expected.amax, static_cast<double>(std::fabs(v)));
    expected.underflowed += v != 0 && decoded == 0 ? 1 : 0;
    expected.squared += static_cast<double>(v) * static_cast<double>(v);
    expected.squared_error += error * error;
  }
  const QuantStats& found = entry.stats;
  EXPECT_EQ(static_cast<double>(run.weights.size()), found.elements);
  EXPECT_EQ(expected.amax, found.amax);
  EXPECT_EQ(static_cast<double>(factor), found.scale);
  EXPECT_GT(expected.underflowed, 0);
  EXPECT_EQ(expected.underflowed, found.underflowed);
  EXPECT_EQ(0, found.non_finite);
  EXPECT_EQ(found.elements / 256, found.blocks);
  // Sums of n positive FP64 numbers, in another order; the ledger's differences are FP32, each off
  // by at most 2^-24 of the larger operand, at most 2 amax.
  const double n = found.elements, sum_bound = n * 0x1p-53;
  EXPECT_NEAR(expected.squared, found.squared, sum_bound * expected.squared);
  const double difference = 2 * expected.amax * 0x1p-24 * std::sqrt(n);  // of the roots
  EXPECT_NEAR(std::sqrt(expected.squared_error), std::sqrt(found.squared_error),
              difference + sum_bound * std::sqrt(expected.squared_error));
}

TEST(Ledger, SumsOverTheMicroBatchesAndLeavesOutWhatIsNotQuantized) {
  CountedRun run(true);
  const int64_t n_tokens = kRecipeBatch * kRecipeSeqLen;
  for (const LedgerEntry& entry : run.ledger.entries()) {
    SCOPED_TRACE(module_name(entry.module));
    const bool kept = entry.module < kLinearsPerBlock;
    const bool weight = entry.slot == OperandSlot::kWFprop || entry.slot == OperandSlot::kWDgrad;
    EXPECT_EQ(kept ? 0 : weight ? 1 : kMicros, entry.micro_batches);
    if (entry.slot != OperandSlot::kXFprop || kept) continue;
    const LinearShape shape = linear_shape(recipe_model(), entry.module);
    EXPECT_EQ(static_cast<double>(kMicros * n_tokens * shape.in), entry.stats.elements);
  }
}

TEST(Ledger, ChangesNothingAndDependsOnNoThreads) {
  CountedRun counted(true), uncounted(false), one_thread(true, 1);
  EXPECT_EQ(bytes_of(counted.trainer.parameters().master),
            bytes_of(uncounted.trainer.parameters().master));
  for (size_t i = 0; i < counted.ledger.entries().size(); ++i) {
    const LedgerEntry& a = counted.ledger.entries()[i];
    const LedgerEntry& b = one_thread.ledger.entries()[i];
    EXPECT_EQ(a.micro_batches, b.micro_batches);
    EXPECT_EQ(0, std::memcmp(&a.stats, &b.stats, sizeof(QuantStats))) << i;
    EXPECT_EQ(0, uncounted.ledger.entries()[i].micro_batches);
  }
}

TEST(Ledger, IsDueAtTheFirstStepAndEveryNth) {
  EXPECT_TRUE(ledger_due(1, 100));
  EXPECT_FALSE(ledger_due(2, 100));
  EXPECT_TRUE(ledger_due(200, 100));
  EXPECT_TRUE(ledger_due(2, 1));
  EXPECT_FALSE(ledger_due(1, 0));
}

class LedgerFiles : public ::testing::Test {
 protected:
  static std::string text_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(LedgerFile& file, int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; ++step) file.step(step, run_.ledger);
  }
  TemporaryFolder folder_;
  std::string path_ = folder_ / "ledger.jsonl";
  CountedRun run_{true};
};

TEST_F(LedgerFiles, ReadBackWhatWasWritten) {
  {
    LedgerFile file(path_, 0);
    write(file, 1, 2);
  }
  const std::vector<LedgerRow> rows = read_ledger(path_);
  size_t at = 0;
  for (int64_t step = 1; step <= 2; ++step) {
    for (const LedgerEntry& entry : run_.ledger.entries()) {
      if (entry.micro_batches == 0) continue;
      ASSERT_LT(at, rows.size());
      const LedgerRow expected = ledger_row(step, entry);
      EXPECT_EQ(to_json(expected).dump(), to_json(rows[at]).dump());
      EXPECT_TRUE(rows[at].emulated);
      // SNR and relative error are one figure; both are rounded to FP32.
      EXPECT_NEAR(-10 * std::log10(rows[at].relative_mse), rows[at].snr_db,
                  std::fabs(rows[at].snr_db) * 0x1p-20f);
      ++at;
    }
  }
  EXPECT_EQ(at, rows.size());
}

TEST_F(LedgerFiles, OfAResumedRunAreThoseOfAnUntouchedOne) {
  const std::string resumed = folder_ / "resumed.jsonl";
  {
    LedgerFile whole(path_, 0);
    write(whole, 1, 4);
  }
  {
    LedgerFile part(resumed, 0);
    write(part, 1, 3);
  }
  std::ofstream(resumed, std::ios::app) << R"({"type":"operand","step":2,"lay)";  // torn by a kill
  {
    LedgerFile part(resumed, 2);
    write(part, 3, 4);
  }
  EXPECT_EQ(text_of(path_), text_of(resumed));
  { LedgerFile fresh(resumed, 0); }
  EXPECT_EQ("{\"type\":\"ledger\",\"step\":0,\"schema\":1}\n", text_of(resumed));
}

TEST_F(LedgerFiles, WriteNullForWhatIsNoNumber) {
  LedgerEntry entry = run_.entry(kCountedModule, OperandSlot::kXFprop);
  entry.stats = {.elements = 200, .amax = 0, .scale = 1, .non_finite = 3};
  const LedgerRow row = ledger_row(1, entry);
  EXPECT_EQ(0.015f, row.non_finite_share);
  EXPECT_EQ(0, row.zero_scale_share);  // of no blocks
  EXPECT_TRUE(to_json(row).at("snr_db").is_null());
}

TEST_F(LedgerFiles, ThatCannotBeReadSayWhy) {
  const auto error = [&](const std::string& text) -> std::string {
    if (!text.empty()) std::ofstream(path_) << text;
    try {
      read_ledger(path_);
    } catch (const ops::Error& e) {
      EXPECT_EQ(ops::ExitCode::kConfig, e.code());
      return e.what();
    }
    return {};
  };
  EXPECT_NE(std::string::npos, error("").find("precision.ledger_every"));
  EXPECT_NE(std::string::npos,
            error("{\"type\":\"ledger\",\"step\":0,\"schema\":7}\n").find("schema 7"));
  EXPECT_NE(std::string::npos,
            error("{\"type\":\"ledger\",\"step\":0,\"schema\":1}\n").find("no step has been"));
}

// A field of another type is damage with a place, not a bug of the reader.
TEST(LedgerReader, NamesTheLineOfAFieldOfAnotherType) {
  const TemporaryFolder folder;
  const std::string path = folder / "ledger.jsonl";
  const std::string header = "{\"type\":\"ledger\",\"step\":0,\"schema\":1}\n";
  const std::vector<std::pair<std::string, std::string>> rows{
      {R"({"type":"operand","step":"1"})", ":2: step: expected an integer, found \"1\""},
      {R"({"type":"operand","step":1.5})", ":2: step: expected an integer, found 1.5"},
      {R"({"type":"operand","layer":3})", ":2: layer: expected a text, found 3"},
      {R"({"type":"operand","emulated":1})", ":2: emulated: expected true or false, found 1"},
      {R"({"type":"operand","amax":"big"})", ":2: amax: expected a number or null, found \"big\""},
      {R"({"type":["operand"]})", ":2: type: expected a text, found [\"operand\"]"},
      {R"({"type":"ledger","schema":{}})", ":2: schema: expected an integer, found {}"}};
  for (const auto& [row, expected] : rows) {
    std::ofstream(path) << header << row << "\n";
    try {
      read_ledger(path);
      ADD_FAILURE() << row;
    } catch (const ops::Error& error) {
      EXPECT_EQ(ops::ExitCode::kData, error.code()) << row;
      EXPECT_NE(std::string::npos, std::string(error.what()).find(path + expected)) << error.what();
    }
    // A run that goes on writes behind such a row, or over it.
    EXPECT_NO_THROW(LedgerFile(path, 3)) << row;
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
