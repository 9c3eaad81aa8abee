// Peaks of a rank: what the table knows, what is given, and what is kept of measurements.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/data/test_files.h"
#include "trainer/machine/peak_cache.h"
#include "trainer/machine/rank_peaks.h"

namespace qstep::trainer {
namespace {

PeakRates rates_of(double bf16, double memory) {
  PeakRates r;
  r.bf16_register_flops_per_s = bf16;
  r.fp32_register_flops_per_s = bf16 / 2;
  r.bf16_gemm_flops_per_s = 0.9 * bf16;
  r.fp32_gemm_flops_per_s = 0.4 * bf16;
  r.triad_bytes_per_s = memory;
  r.gemm_size = 1024;
  return r;
}

PeakKey key_of(int64_t threads, const std::string& build = "a") {
  return {.cpu = "a processor", .threads = threads, .ranks = 1, .build = build};
}

TEST(PeakCache, KeepsTheBestOfEachFigureAndCounts) {
  const data::TempDir folder;
  const PeakCache cache(folder / "deep/down/peaks.json");
  EXPECT_FALSE(cache.find(key_of(2)));
  EXPECT_EQ(cache.add(key_of(2), rates_of(1e11, 3e10)).measurements, 1);
  const KeptPeak best = cache.add(key_of(2), rates_of(2e11, 1e10));
  EXPECT_EQ(best.measurements, 2);
  EXPECT_EQ(best.rates.bf16_flops_per_s(), 2e11);
  EXPECT_EQ(best.rates.triad_bytes_per_s, 3e10);
  const auto found = cache.find(key_of(2));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->measurements, 2);
  EXPECT_EQ(found->rates.bf16_gemm_flops_per_s, 0.9 * 2e11);  // read back to the same bits
  EXPECT_EQ(found->rates.n_threads, 2);
  EXPECT_FALSE(cache.find(key_of(1)));
}

TEST(PeakCache, AnotherBuildReplacesAndAnotherKeyStaysBeside) {
  const data::TempDir folder;
  const PeakCache cache(folder / "peaks.json");
  cache.add(key_of(1), rates_of(1e11, 1e10));
  cache.add(key_of(2), rates_of(2e11, 1e10));
  EXPECT_EQ(cache.add(key_of(2, "b"), rates_of(5e10, 1e10)).rates.bf16_flops_per_s(), 5e10);
  EXPECT_FALSE(cache.find(key_of(2)));
  EXPECT_TRUE(cache.find(key_of(2, "b")));
  EXPECT_TRUE(cache.find(key_of(1)));
}

TEST(PeakCache, NothingAboutTheFileIsAnError) {
  const data::TempDir folder;
  data::write_file(folder / "peaks.json", R"({"schema":1,"peaks":[{"cpu":)");
  const PeakCache torn(folder / "peaks.json");
  EXPECT_FALSE(torn.find(key_of(1)));
  EXPECT_EQ(torn.add(key_of(1), rates_of(1e11, 1e10)).measurements, 1);
  EXPECT_TRUE(torn.find(key_of(1)));  // replaced
  data::write_file(folder / "other.json", R"({"schema":2,"peaks":[]})");
  EXPECT_FALSE(PeakCache(folder / "other.json").find(key_of(1)));
  // A file where a folder should be: not writable, even for root.
  const PeakCache nowhere(folder / "other.json/peaks.json");
  EXPECT_EQ(nowhere.add(key_of(1), rates_of(1e11, 1e10)).measurements, 1);
  EXPECT_FALSE(nowhere.find(key_of(1)));
  const PeakCache none("");
  EXPECT_EQ(none.add(key_of(1), rates_of(1e11, 1e10)).rates.bf16_flops_per_s(), 1e11);
  EXPECT_FALSE(none.find(key_of(1)));
}

TEST(Devices, AreKnownByTheNamesOfTheirDrivers) {
  const auto name = [](std::string_view device) {
    const MachineModel* const machine = find_device(device);
    return machine == nullptr ? std::string("unknown") : machine->name;
  };
  EXPECT_EQ(name("NVIDIA H100 80GB HBM3"), "h100");
  EXPECT_EQ(name("NVIDIA H100 PCIe"), "h100-pcie");
  EXPECT_EQ(name("NVIDIA H100 NVL"), "h100-nvl");
  EXPECT_EQ(name("NVIDIA H200"), "h200");
  EXPECT_EQ(name("NVIDIA B200"), "b200");
  EXPECT_EQ(name("NVIDIA GB200"), "gb200");
  EXPECT_EQ(name("NVIDIA GB300"), "gb300");
  EXPECT_EQ(name("NVIDIA A100-SXM4-80GB"), "a100");
  EXPECT_EQ(name("NVIDIA GeForce RTX 5090"), "rtx5090");
  EXPECT_EQ(name("NVIDIA RTX PRO 6000 Blackwell Workstation Edition"), "rtx-pro-6000");
  // Other boards of these generations, and others: never the nearest one's figures.
  for (const char* device :
       {"NVIDIA H200 NVL", "NVIDIA H20", "NVIDIA GH200 480GB", "NVIDIA B100",
        "NVIDIA GeForce RTX 5090 Laptop GPU", "NVIDIA A100-PCIE-40GB", "", "cpu"}) {
    EXPECT_EQ(name(device), "unknown") << device;
  }
}

class RankMachine : public ::testing::Test {
 protected:
  static Config config_of(const std::string& peak, const std::string& recipe = "bf16") {
    const std::vector<std::string> overrides{"timing.peak=" + peak, "precision.recipe=" + recipe};
    return load_config("", overrides).config;
  }
  MachineModel machine(const std::string& peak, std::string_view device = "cpu",
                       const std::string& recipe = "bf16") {
    return rank_machine(*comm_, config_of(peak, recipe), device);
  }
  std::unique_ptr<parallel::Comm> comm_ = parallel::make_single();
};

TEST_F(RankMachine, IsOffGivenNamedOrTheDevices) {
  EXPECT_FALSE(machine("off").has(ProductFormat::kBf16));
  EXPECT_EQ(peaks_text(machine("off")), "not known");
  EXPECT_DOUBLE_EQ(machine("0.5").product(ProductFormat::kBf16).peak, 5e11);
  EXPECT_FALSE(machine("0.5").has(ProductFormat::kFp32));
  EXPECT_DOUBLE_EQ(machine("0.5", "cpu", "fp32").product(ProductFormat::kFp32).peak, 5e11);
  EXPECT_EQ(peaks_text(machine("0.5")), "500 GFLOP/s bf16 (timing.peak = 0.5)");
  EXPECT_EQ(machine("h200").product(ProductFormat::kBf16).peak, 989e12);
  EXPECT_EQ(machine("measure", "NVIDIA B200").name, "b200");
}

TEST_F(RankMachine, AnUnknownGpuHasNone) {
  const MachineModel m = machine("measure", "NVIDIA H20");
  for (const Rate& rate : m.products) EXPECT_EQ(rate.peak, 0);
  EXPECT_EQ(peaks_source(m), "");
}

// The first starts measure, and later ones take what is kept.
TEST_F(RankMachine, AProcessorIsMeasuredAndTheBestIsKept) {
  const data::TempDir folder;
  ASSERT_EQ(0, setenv("XDG_CACHE_HOME", folder.str().c_str(), 1));
  const PeakCache cache = user_peak_cache();
  double best = 0;
  for (int start = 1; start <= kPeakMeasurements; ++start) {
    const MachineModel m = machine("measure");
    EXPECT_GE(m.product(ProductFormat::kBf16).peak, best);
    best = m.product(ProductFormat::kBf16).peak;
    EXPECT_GT(m.memory.peak, 0);
    EXPECT_NE(peaks_source(m).find("measured"), std::string::npos) << peaks_source(m);
  }
  const MachineModel kept = machine("measure");
  EXPECT_EQ(kept.product(ProductFormat::kBf16).peak, best);
  std::ostringstream text;
  text << std::ifstream(folder / "qstep/peaks.json").rdbuf();
  EXPECT_NE(text.str().find("\"measurements\": 3"), std::string::npos) << text.str();
}

TEST(PeakOption, SaysWhatItMayBe) {
  for (const char* good : {"measure", "off", "0.467", "989", "1e3", "gb300"}) {
    EXPECT_EQ(peak_problem(good), "") << good;
  }
  for (const char* bad : {"0", "-1", "nan", "inf", "12x", "h2000", "mesure"}) {
    EXPECT_NE(peak_problem(bad), "") << bad;
  }
  EXPECT_EQ(peak_problem("mesure"),
            "timing.peak = \"mesure\" is neither a number of TFLOP/s above 0 nor one of measure, "
            "off, rtx4090, rtx5090, rtx-pro-6000, a100, h100-pcie, h100-nvl, h100, h200, b200, "
            "b300, gb200, gb300: write timing.peak = \"measure\"");
  EXPECT_THROW(load_config("", std::vector<std::string>{"timing.peak=fast"}), ops::Error);
}

}  // namespace
}  // namespace qstep::trainer
