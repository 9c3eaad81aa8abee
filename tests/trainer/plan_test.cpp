// What qstep plan --gpu says, as JSON, and its sweep over meshes.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "trainer/config/tensor_check.h"
#include "trainer/model/linear_operands.h"
#include "trainer/plan/plan_prediction.h"
#include "trainer/step/machine_memory.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {
namespace {

Config config_of(const std::vector<std::string>& words) { return load_model_words(words).config; }

Config small() {
  return config_of({"llama-1b", "model.vocab_size=32000", "train.seq_len=2048",
                    "train.micro_batch=2", "train.global_batch=64", "precision.recipe=mxfp8"});
}

TEST(Plan, PhasesAddUpToTheStep) {
  const MachineModel& machine = machine_model("b200");
  const auto json = to_json(predict(small(), machine, 8, false), machine);
  double sum = 0;
  for (const auto& [phase, ms] : json["breakdown_ms"].items()) sum += ms.get<double>();
  EXPECT_NEAR(sum, json["step_ms"].get<double>(), 1e-9 * sum);
  EXPECT_NEAR(json["tokens_per_s"].get<double>(), 64 * 2048 / (1e-3 * sum), 1);
  EXPECT_EQ(json["machine"]["name"], "b200");
  EXPECT_FALSE(json["emulated"].get<bool>());
  EXPECT_FALSE(json.contains("sweep"));
  EXPECT_GT(json["gain_over_bf16"], 1);
  EXPECT_GT(json["largest_gain_over_bf16"], json["gain_over_bf16"]);
  EXPECT_LT(json["sol"], 1);
  for (const auto& product : json["products"]) {
    EXPECT_EQ(product["runs_as"], product["op"] == "head" ? "bf16" : "mxfp8");
  }
}

// Of one call of a product, and of an element of what is quantized: numbers of papers.
TEST(Plan, SaysWhatAProductAndAQuantizerMove) {
  Config config = small();
  const auto on = [&](const char* machine, const char* recipe) {
    set_recipe(config, recipe);
    return to_json(predict(config, machine_model(machine), 1, false), machine_model(machine));
  };
  const auto fprop = [](const auto& json) {
    for (const auto& p : json["products"]) {
      if (p["op"] == "up" && p["pass"] == "fprop") return p;
    }
    return nlohmann::ordered_json();
  };
  const double m = 2 * 2048, n = 2 * 8192, k = 2048;
  const auto bf16 = fprop(on("h200", "bf16")), mxfp8 = fprop(on("b200", "mxfp8"));
  EXPECT_EQ(bf16["flops"], 2 * m * n * k);
  EXPECT_EQ(bf16["bytes"], 2 * (m * k + n * k + m * n));
  EXPECT_EQ(mxfp8["flops"], 2 * m * n * k);
  EXPECT_EQ(mxfp8["bytes"], (1 + 1.0 / 32) * (m * k + n * k) + 2 * m * n);
  EXPECT_EQ(fprop(on("b200", "nvfp4"))["bytes"], (0.5 + 1.0 / 16) * (m * k + n * k) + 2 * m * n);

  const auto x = [&](const char* machine, const char* recipe) {
    const auto q = on(machine, recipe)["quantized"][0];
    EXPECT_EQ(q["tensor"], "x");
    return std::pair(q["read_per_element"].template get<double>(),
                     q["written_per_element"].template get<double>());
  };
  EXPECT_EQ(x("b200", "nvfp4"), std::pair(4.0, 2 * (0.5 + 1.0 / 16)));  // an amax comes first
  EXPECT_EQ(x("b200", "mxfp8"), std::pair(2.0, 2 * (1 + 1.0 / 32)));
  // Codes are made for both products, wherever the library takes them; the norm left the amax.
  EXPECT_EQ(x("h200", "fp8-current"), std::pair(2.0, 2.0));
  EXPECT_EQ(x("b200", "fp8-current"), std::pair(2.0, 2.0));
  // Decoded at once; one copy serves both products where it is the other's transpose.
  EXPECT_EQ(x("h200", "mxfp8"), std::pair(2.0, 4.0));
  EXPECT_EQ(x("a100", "fp8-current"), std::pair(2.0, 2.0));
}

// What the layer's memory holds of a tensor, what both orientations share once.
int64_t laid_out_bytes(const QuantizedPair& pair) {
  std::map<const void*, int64_t> bytes;
  for (const ops::QuantizedTensor& q : {pair.rowwise, pair.columnwise}) {
    for (const ops::Tensor& t : {q.values, q.codes, q.block_scales, q.tile_scales}) {
      if (t.data != nullptr) bytes[t.data] = t.bytes();
    }
  }
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0},
                         [](int64_t sum, const auto& one) { return sum + one.second; });
}

// The quantizers' bytes are those of the layout that the linear layers compute with.
TEST(Plan, QuantizersWriteWhatIsLaidOut) {
  MachineModel decodes = machine_model("h200"), multiplies = decodes;
  for (const ProductFormat format :
       {ProductFormat::kFp8, ProductFormat::kFp8Tiles, ProductFormat::kMxfp8, ProductFormat::kMxfp4,
        ProductFormat::kNvfp4}) {
    decodes.products[static_cast<size_t>(format)].peak = 0;
    multiplies.products[static_cast<size_t>(format)].peak = 1;
  }
  const auto cpu = ops::make_cpu_ops();
  for (const char* const recipe :
       {"fp8-current", "fp8-delayed", "fp8-block", "mxfp8", "mxfp4", "nvfp4"}) {
    const Config config =
        config_of({"llama-15m", "train.seq_len=128", "train.micro_batch=2", "train.global_batch=2",
                   std::string("precision.recipe=") + recipe});
    for (const bool native : {false, true}) {
      const NativeProducts products([&](const ops::CodeProduct&) { return native; },
                                    ops::Dtype::kBf16);
      const StepWork work = step_work(config, 1);
      ASSERT_LE(12u, work.quantizations.size()) << recipe;  // x, w and dy of four layers
      for (const QuantizeWork& q : work.quantizations) {
        const auto kind = static_cast<LinearKind>(
            std::find(kLinearNames.begin(), kLinearNames.end(), q.op) - kLinearNames.begin());
        LinearTensors t;
        const auto lay_out = [&](ops::Arena& arena) {
          const LinearShape shape = linear_shape(config.model, kind);
          lay_out_kept(arena, t, q.table, shape, work.tokens, Purpose::kTraining, products);
          lay_out_scratch(arena, t, q.table, shape, work.tokens, Purpose::kTraining, products);
        };
        ops::Arena measure;
        lay_out(measure);
        const ops::Buffer buffer = cpu->allocate(measure.peak_bytes());
        ops::Arena place(buffer);
        lay_out(place);
        const QuantizedPair& pair = q.tensor == "x" ? t.x : q.tensor == "w" ? t.w : t.dy;
        const MachineModel& machine = native ? multiplies : decodes;
        EXPECT_EQ(quantize_bytes(q, machine, work.compute).written,
                  static_cast<double>(laid_out_bytes(pair)))
            << recipe << " " << q.op << " " << q.tensor << (native ? " native" : " decoded");
      }
    }
  }
}

// A format that the machine has no products of costs its quantizers and saves nothing.
TEST(Plan, AnEmulatedFormatGainsNothing) {
  Config config = small();
  for (const char* const recipe : {"nvfp4", "nvfp4-all-layers", "mxfp8", "mxfp4"}) {
    set_recipe(config, recipe);
    const Prediction prediction = predict(config, machine_model("h200"), 1, false);
    EXPECT_TRUE(prediction.step.emulated) << recipe;
    EXPECT_LT(prediction.gain(), 1) << recipe;
    EXPECT_LE(prediction.step.least.largest_gain(), 1) << recipe;
  }
}

TEST(Plan, Bf16GainsNothingOverItself) {
  Config config = small();
  set_recipe(config, "bf16");
  const Prediction prediction = predict(config, machine_model("h100"), 8, false);
  EXPECT_EQ(prediction.gain(), 1);
  EXPECT_EQ(prediction.step.least.largest_gain(), 1);
}

TEST(Plan, MemoryIsThatOfTheTable) {
  const Config config = small();
  int64_t bytes = 0;
  for (const MemoryRow& row : machine_memory(config, machine_model("h100"), 8)) bytes += row.bytes;
  EXPECT_EQ(predict(config, machine_model("h100"), 8, false).memory_bytes, bytes);
}

TEST(Plan, TheSweepHasEveryMeshThatComesOutEvenTheBestFirst) {
  const Config config = small();
  MachineModel machine = machine_model("h100");
  machine.memory_bytes = 40'000'000'000;
  const std::vector<SweepRow> rows = sweep_meshes(config, machine, 8);
  std::set<std::pair<int64_t, int64_t>> meshes;
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(meshes.insert({rows[i].tensor, rows[i].micro_batch}).second);
    EXPECT_EQ(rows[i].tensor * rows[i].data, 8);
    EXPECT_EQ(rows[i].fits, rows[i].memory_bytes <= machine.memory_bytes);
    if (i == 0) continue;
    EXPECT_GE(rows[i - 1].fits, rows[i].fits);
    if (rows[i - 1].fits == rows[i].fits) {
      EXPECT_LE(rows[i - 1].time.seconds(), rows[i].time.seconds());
    }
  }
  // 64 sequences over D groups in micro-batches of 1, 2, ... 64 / D.
  size_t expected = 0;
  for (const int64_t tensor : possible_tensors(config)) {
    if (tensor > 8) continue;
    for (int64_t micro = 1; micro <= 64 * tensor / 8; micro *= 2) ++expected;
  }
  EXPECT_EQ(rows.size(), expected);
  EXPECT_TRUE(rows.front().fits);
  EXPECT_FALSE(rows.back().fits);
}

TEST(Plan, TheSweepKeepsSharedLayersWithinTheLink) {
  MachineModel machine = machine_model("h100");
  machine.gpus_per_link = 2;
  for (const SweepRow& row : sweep_meshes(small(), machine, 8)) EXPECT_LE(row.tensor, 2);
}

}  // namespace
}  // namespace qstep::trainer
