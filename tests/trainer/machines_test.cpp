#include "trainer/machine/machines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "ops/error.h"

namespace qstep::trainer {
namespace {

using precision::default_spec;
using precision::QuantFormat;
using precision::QuantSpec;

double tflops(std::string_view machine, ProductFormat format) {
  return machine_model(machine).product(format).peak / 1e12;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const ops::Error& e) {
    EXPECT_EQ(e.code(), ops::ExitCode::kConfig);
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(Machines, HaveThePublishedDensePeaks) {
  EXPECT_EQ(tflops("h100", ProductFormat::kBf16), 989);
  EXPECT_EQ(tflops("h200", ProductFormat::kFp8), 1979);
  EXPECT_EQ(tflops("h200", ProductFormat::kNvfp4), 0);
  EXPECT_EQ(tflops("b200", ProductFormat::kBf16), 2250);
  EXPECT_EQ(tflops("b300", ProductFormat::kNvfp4), 13500);
  EXPECT_EQ(tflops("gb200", ProductFormat::kMxfp8), 4900);
  EXPECT_EQ(tflops("gb300", ProductFormat::kNvfp4), 14700);
  EXPECT_EQ(tflops("rtx5090", ProductFormat::kBf16), 209.5);
  EXPECT_EQ(tflops("a100", ProductFormat::kFp8), 0);
}

TEST(Machines, EveryRateHasAShareAndASource) {
  std::vector<std::string> names;
  for (const MachineModel& m : machines()) {
    SCOPED_TRACE(m.name);
    EXPECT_EQ(std::count(names.begin(), names.end(), m.name), 0);
    names.push_back(m.name);
    const auto sound = [](const Rate& rate) {
      EXPECT_GT(rate.share, 0);
      EXPECT_LE(rate.share, 1);
      EXPECT_FALSE(rate.source.empty());
    };
    EXPECT_TRUE(m.has(ProductFormat::kBf16));
    for (const Rate& rate : m.products) {
      if (rate.peak > 0) sound(rate);
    }
    sound(m.memory);
    sound(m.link);
    EXPECT_GT(m.attention_forward, m.attention_backward);
    EXPECT_FALSE(m.attention_source.empty());
    EXPECT_GE(m.gpus_per_link, m.gpus_per_node);
    EXPECT_GT(m.memory_bytes, 0);
  }
}

TEST(Machines, AnUnknownOneIsRefusedWithTheKnownOnes) {
  const std::string text = error_of([] { machine_model("gb30"); });
  EXPECT_TRUE(contains(text, "the nearest is \"gb300\"")) << text;
  EXPECT_TRUE(contains(text, "h100, h200, b200, b300, gb200, gb300")) << text;
  EXPECT_TRUE(contains(text, "--machine FILE.toml")) << text;
}

TEST(Machines, TheFormatOfAProductFollowsFromBothOperands) {
  const auto format = [](const QuantSpec& a, const QuantSpec& b) {
    return product_format(a, b, ProductFormat::kBf16);
  };
  const QuantSpec bf16 = default_spec(QuantFormat::kBf16),
                  fp8 = default_spec(QuantFormat::kFp8E4m3),
                  nvfp4 = default_spec(QuantFormat::kNvfp4);
  QuantSpec tiles = fp8, groups = nvfp4;
  tiles.block = {1, 128};
  groups.amax = precision::AmaxScope::kGroup128;
  EXPECT_EQ(format(bf16, nvfp4), ProductFormat::kBf16);
  EXPECT_EQ(format(nvfp4, nvfp4), ProductFormat::kNvfp4);
  EXPECT_EQ(format(nvfp4, groups), ProductFormat::kBf16);  // factors that change along the sum
  EXPECT_EQ(format(fp8, default_spec(QuantFormat::kFp8E5m2)), ProductFormat::kFp8);
  EXPECT_EQ(format(tiles, tiles), ProductFormat::kFp8Tiles);
  EXPECT_EQ(format(fp8, tiles), ProductFormat::kBf16);
  EXPECT_EQ(format(default_spec(QuantFormat::kMxfp8E4m3), default_spec(QuantFormat::kMxfp8E5m2)),
            ProductFormat::kMxfp8);
}

TEST(Machines, AFormatThatIsNotThereIsDecoded) {
  const auto runs = [](std::string_view machine, const QuantSpec& left, const QuantSpec& right) {
    return runs_as(machine_model(machine), left, right, ProductFormat::kBf16);
  };
  const QuantSpec bf16 = default_spec(QuantFormat::kBf16),
                  nvfp4 = default_spec(QuantFormat::kNvfp4);
  QuantSpec tiles = default_spec(QuantFormat::kFp8E4m3);
  tiles.block = {1, 128};
  tiles.scale = precision::ScaleRule::kFp32;
  QuantSpec pow2 = tiles;
  pow2.scale = precision::ScaleRule::kFp32Pow2;
  EXPECT_EQ(runs("h100", nvfp4, nvfp4).format, ProductFormat::kBf16);
  EXPECT_EQ(runs("h100", nvfp4, nvfp4).asked, ProductFormat::kNvfp4);
  EXPECT_TRUE(runs("h100", nvfp4, nvfp4).emulated);
  EXPECT_FALSE(runs("gb300", nvfp4, nvfp4).emulated);
  EXPECT_TRUE(runs("gb300", nvfp4, bf16).emulated);  // one of them has to be decoded
  EXPECT_EQ(runs("h100", tiles, tiles).format, ProductFormat::kFp8Tiles);
  EXPECT_EQ(runs("b200", pow2, pow2).format, ProductFormat::kMxfp8);
  EXPECT_FALSE(runs("b200", pow2, pow2).emulated);
  EXPECT_TRUE(runs("b200", tiles, pow2).emulated);
  EXPECT_FALSE(runs("a100", bf16, bf16).emulated);
}

constexpr const char* kFile = R"(
name = "mine"
gpus_per_node = 4
[products.bf16]
tflops = 100
share = 0.5
source = "a guess"
[products.nvfp4]
tflops = 400
share = 0.25
source = "another"
[attention]
forward = 0.6
backward = 0.5
source = "a paper"
[memory]
tb_per_s = 2
gb = 48
share = 0.8
source = "sheet"
[link]
gb_per_s = 50
share = 0.9
source = "sheet"
)";

TEST(Machines, AFileDescribesAnother) {
  const MachineModel m = parse_machine(kFile, "mine.toml");
  EXPECT_EQ(m.name, "mine");
  EXPECT_EQ(m.product(ProductFormat::kBf16).attained(), 50e12);
  EXPECT_EQ(m.product(ProductFormat::kNvfp4).source, "another");
  EXPECT_FALSE(m.has(ProductFormat::kFp8));
  EXPECT_EQ(m.memory_bytes, 48'000'000'000);
  EXPECT_EQ(m.memory.attained(), 1.6e12);
  EXPECT_EQ(m.link.peak, 50e9);
  EXPECT_EQ(m.gpus_per_link, 4);
  EXPECT_EQ(m.network.peak, 0);
}

TEST(Machines, AFileIsRefusedWithEveryProblem) {
  std::string broken = kFile;
  broken.replace(broken.find("share = 0.5"), 11, "share = 1.5");
  broken.replace(broken.find("source = \"a paper\""), 18, "sorce = \"a paper\"");
  const std::string text = error_of([&] { parse_machine(broken, "mine.toml"); });
  EXPECT_TRUE(contains(text, "line 6: products.bf16.share takes a number in (0, 1]")) << text;
  EXPECT_TRUE(contains(text, "attention.source is missing")) << text;
  EXPECT_TRUE(contains(text, "attention.sorce is not a key of a machine; the nearest is source"))
      << text;
  EXPECT_TRUE(contains(error_of([] { parse_machine("name = \"x\"", "x.toml"); }), "products.bf16"));
}

TEST(Machines, TheProcessorIsWhatWasMeasured) {
  PeakRates peak;
  peak.fp32_gemm_flops_per_s = 1e11;
  peak.fp32_register_flops_per_s = 1.25e11;
  peak.triad_bytes_per_s = 2e10;
  const MachineModel m = measured_machine(peak, "a processor", 1 << 30);
  EXPECT_DOUBLE_EQ(m.product(ProductFormat::kFp32).attained(), 1e11);
  EXPECT_DOUBLE_EQ(m.product(ProductFormat::kBf16).attained(), 1e11);  // widened
  EXPECT_EQ(m.product(ProductFormat::kBf16).peak, 1.25e11);
  EXPECT_EQ(m.memory.attained(), 2e10);
  const QuantSpec nvfp4 = default_spec(QuantFormat::kNvfp4);
  EXPECT_TRUE(runs_as(m, nvfp4, nvfp4, ProductFormat::kBf16).emulated);
}

}  // namespace
}  // namespace qstep::trainer
