// `qstep quantize`: a .npy file in, HDF5 and a summary out. The content of the files is held
// against the tests' own quantizers.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/trainer/quantize_cmd_testing.h"
#include "trainer/config/recipe_file.h"

namespace qstep::trainer {
namespace {

using nlohmann::json;
using precision::QuantFormat;

// The words of a quantizer, field by field.
Words words_of(const QuantSpec& s) {
  return {"--format",        std::string(name(s.format)),
          "--block",         std::string(name(s.block)),
          "--scale",         std::string(name(s.scale)),
          "--rounding",      std::string(name(s.rounding)),
          "--hadamard",      std::to_string(s.hadamard),
          "--signs",         std::string(name(s.signs)),
          "--four-over-six", std::string(name(s.four_over_six)),
          "--e4m3-max",      std::to_string(s.e4m3_max),
          "--headroom",      std::string(name(s.headroom)),
          "--amax",          std::string(name(s.amax))};
}

// One in seventeen of all quantizers, of both orientations and types.
TEST_F(QuantizeCommand, AnyQuantizerFromItsWords) {
  const std::vector<QuantSpec> specs = test::all_quant_specs();
  int n = 0;
  for (size_t i = 0; i < specs.size(); i += 17) {
    write_source(128, 256, n++ % 2 == 0 ? Dtype::kF32 : Dtype::kBf16);
    Words words = words_of(specs[i]);
    words.insert(words.end(), {"--orientation", "both", "--slot", "dy"});
    const Hdf5File file = quantize(words);
    SCOPED_TRACE(precision::describe(specs[i]));
    expect_group(file, "/rowwise", expected(specs[i], Orientation::kRowwise, LinearTensor::kDy));
    expect_group(file, "/columnwise",
                 expected(specs[i], Orientation::kColumnwise, LinearTensor::kDy));
    if (HasFailure()) return;
  }
  EXPECT_GT(n, 30);
}

TEST_F(QuantizeCommand, TheFormatAloneGivesItsDefaults) {
  write_source(32, 128);
  for (const auto& [text, format] : precision::kQuantFormatNames) {
    if (format == QuantFormat::kBf16) continue;
    const Hdf5File file = quantize({"--format", std::string(text)});
    expect_group(file, "/rowwise",
                 expected(precision::default_spec(format), Orientation::kRowwise));
    EXPECT_FALSE(file.exists("/columnwise"));
  }
}

TEST_F(QuantizeCommand, TheRootSaysWhatItWas) {
  write_source(16, 32, Dtype::kBf16);
  const Hdf5File file = quantize({"--format", "nvfp4", "--slot", "dy", "--orientation", "column"});
  EXPECT_FALSE(file.exists("/rowwise"));
  EXPECT_EQ(file.read_string("/", "format"), "quarterstep quantized tensor");
  EXPECT_EQ(file.read_u64("/", "format_version"), 1u);
  EXPECT_EQ(file.read_string("/", "computed"), "emulated on the CPU");
  EXPECT_EQ(file.read_string("/", "source"), dir_ / "x.npy");
  EXPECT_EQ(file.read_string("/", "source_type"), "bf16");
  EXPECT_EQ(file.read_u64("/", "rows"), 16u);
  EXPECT_EQ(file.read_u64("/", "cols"), 32u);
  EXPECT_EQ(file.read_u64("/", "seed"), 9u);
  EXPECT_EQ(file.read_u64("/", "step"), 3u);
  EXPECT_EQ(file.read_u64("/", "micro_batch"), 2u);
  EXPECT_EQ(file.read_u64("/", "module"), 5u);
  EXPECT_EQ(file.read_string("/", "slot"), "dy");
}

// Shapes that are no multiple of the block: what lies beyond counts as zero. Codes end with the
// tensor, scales with the block.
TEST_F(QuantizeCommand, RaggedShapes) {
  for (const QuantFormat format :
       {QuantFormat::kNvfp4, QuantFormat::kMxfp4, QuantFormat::kMxfp8E4m3, QuantFormat::kFp8E4m3}) {
    const Words format_words{"--format", std::string(name(format)), "--orientation", "both"};
    SCOPED_TRACE(name(format));
    write_source(37, 53);
    const Hdf5File ragged = quantize(format_words);
    const auto row_codes = dataset<uint8_t>(ragged, "/rowwise/codes", Hdf5Type::kU8);
    const auto values = dataset<float>(ragged, "/rowwise/dequantized", Hdf5Type::kF32);
    std::vector<uint8_t> row_scales;
    if (!is_fp8_format(format)) {
      row_scales = dataset<uint8_t>(ragged, "/rowwise/block_scales", Hdf5Type::kU8);
    }

    // The same numbers with zeros around them.
    const Values x = x_;
    x_.assign(64 * 64, 0.0f);
    for (size_t r = 0; r < 37; ++r) {
      std::copy_n(x.begin() + static_cast<std::ptrdiff_t>(53 * r), 53,
                  x_.begin() + static_cast<std::ptrdiff_t>(64 * r));
    }
    rows_ = cols_ = 64;
    write_npy(dir_ / "x.npy", x_, 64, 64, Dtype::kF32);
    const Hdf5File padded = quantize(format_words);
    const auto padded_codes = dataset<uint8_t>(padded, "/rowwise/codes", Hdf5Type::kU8);
    const auto padded_values = dataset<float>(padded, "/rowwise/dequantized", Hdf5Type::kF32);
    const size_t row_bytes = four_bits(format) ? 27 : 53,
                 padded_bytes = four_bits(format) ? 32 : 64;
    ASSERT_EQ(row_codes.size(), 37 * row_bytes);
    for (size_t r = 0; r < 37; ++r) {
      for (size_t c = 0; c < 53; ++c) EXPECT_EQ(values[53 * r + c], padded_values[64 * r + c]);
      for (size_t c = 0; c < row_bytes; ++c) {
        EXPECT_EQ(row_codes[row_bytes * r + c], padded_codes[padded_bytes * r + c]);
      }
    }
    if (row_scales.empty()) continue;
    auto padded_scales = dataset<uint8_t>(padded, "/rowwise/block_scales", Hdf5Type::kU8);
    padded_scales.resize(row_scales.size());  // 64 and 53 have as many blocks
    EXPECT_EQ(row_scales, padded_scales);
  }
}

TEST_F(QuantizeCommand, TheQuantizersOfARecipe) {
  write_source(128, 256, Dtype::kBf16);
  const precision::Recipe recipe = load_recipe("nvfp4");
  for (size_t tensor = 0; tensor < kOperandsOf.size(); ++tensor) {
    for (const bool row : {true, false}) {
      const auto slot = row ? kOperandsOf[tensor].row : kOperandsOf[tensor].column;
      const Hdf5File file =
          quantize({"--recipe", "nvfp4", "--operand",
                    std::string(precision::kOperandSlotNames[static_cast<size_t>(slot)])});
      EXPECT_EQ(file.exists("/rowwise"), row);
      EXPECT_EQ(file.exists("/columnwise"), !row);
      expect_group(
          file, row ? "/rowwise" : "/columnwise",
          expected(recipe.operands[slot], row ? Orientation::kRowwise : Orientation::kColumnwise,
                   static_cast<LinearTensor>(tensor)));
    }
  }
}

// What the forward pass made is quantized again: the file holds both.
TEST_F(QuantizeCommand, AnOperandMadeFromTheForwardOne) {
  write_source(128, 256);
  const precision::Recipe recipe = load_recipe("quartet2");
  const QuantSpec& spec = recipe.operands[precision::OperandSlot::kXWgrad];
  ASSERT_EQ(spec.source, precision::Source::kForward);
  const Hdf5File file = quantize({"--recipe", "quartet2", "--operand", "x_wgrad"});
  const reference::Quantized row =
      expected(recipe.operands[precision::OperandSlot::kXFprop], Orientation::kRowwise);
  expect_group(file, "/rowwise", row);

  // The factor of the tensor passes on, so the decoded values are the source.
  x_ = row.values;
  const reference::Quantized column = expected(spec, Orientation::kColumnwise);
  expect_group(file, "/columnwise", column,
               column.scale * (row.scale / row.denominator) / column.denominator);
}

// As in a run: without a quantized forward operand the tensor itself is the source.
TEST_F(QuantizeCommand, AnOperandWhoseForwardOneIsNotQuantized) {
  write_source(64, 64);
  data::write_file(dir_ / "f.toml", R"([operands]
x_wgrad = { format = "nvfp4", source = "forward" }
dy_wgrad = "nvfp4"
)");
  const Hdf5File file = quantize({"--recipe", dir_ / "f.toml", "--operand", "x_wgrad"});
  EXPECT_FALSE(file.exists("/rowwise"));
  expect_group(file, "/columnwise",
               expected(precision::default_spec(QuantFormat::kNvfp4), Orientation::kColumnwise));
}

// Stochastic rounding of the weight does not follow --micro-batch.
TEST_F(QuantizeCommand, TheWeightHasTheBitsOfMicroBatchZero) {
  write_source(64, 64);
  QuantSpec spec = precision::default_spec(QuantFormat::kNvfp4);
  spec.rounding = precision::Rounding::kStochastic;
  const Hdf5File file = quantize({"--format", "nvfp4", "--rounding", "stochastic", "--slot", "w"});
  EXPECT_EQ(file.read_u64("/", "micro_batch"), 0u);
  expect_group(file, "/rowwise", expected(spec, Orientation::kRowwise, LinearTensor::kW));
}

// ---- the summary ----------------------------------------------------------------------------

TEST_F(QuantizeCommand, Summary) {
  write_source(32, 64);
  x_.assign(x_.size(), 1.0f);
  x_[0] = 448.0f;
  x_[1] = 1e-9f;
  x_[2] = std::nanf("");
  write_npy(dir_ / "x.npy", x_, 32, 64, Dtype::kF32);
  const Words words{"--format", "mxfp8-e4m3", "--input", dir_ / "x.npy", "-o", dir_ / "q.h5"};
  const std::string text = run(words);
  for (const char* part : {"[32, 64] fp32", "mxfp8-e4m3 1x32 (emulated)", "amax         448",
                           "underflowed  1 (0.0488 %)", "saturated    0", "non-finite   1",
                           "zero scales  0", "GB/s", "q.h5"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " not in\n" << text;
  }
  Words with_json = words;
  with_json.push_back("--json");
  const json found = json::parse(run(with_json));
  EXPECT_EQ(found["rows"], 32);
  const json& operand = found["operands"][0];
  EXPECT_EQ(operand["quantizer"], "mxfp8-e4m3 1x32");
  EXPECT_EQ(operand["emulated"], true);
  EXPECT_EQ(operand["amax"], 448);
  EXPECT_EQ(operand["elements"], 32 * 64);
  EXPECT_EQ(operand["underflowed"], 1);
  EXPECT_EQ(operand["non_finite"], 1);
  EXPECT_EQ(operand["blocks"], 64);
}

}  // namespace
}  // namespace qstep::trainer
