// `qstep quantize` as a user calls it: a .npy file in, HDF5 and a summary out. The content of the
// files is held against the tests' own quantizers.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "precision/scale_layout.h"
#include "tests/data/test_files.h"
#include "tests/ops/quantize_testing.h"
#include "trainer/command/commands.h"
#include "trainer/config/recipe_file.h"
#include "trainer/model/linear_operands.h"

namespace qstep::trainer {
namespace {

using data::Hdf5File;
using data::Hdf5Type;
using data::TempDir;
using nlohmann::json;
using ops::Dtype;
using ops::Orientation;
using precision::QuantFormat;
using precision::QuantSpec;
using test::Values;
namespace reference = test::reference;

using Words = std::vector<std::string>;

// stdout of `qstep quantize WORDS...`; exceptions pass.
std::string run(Words words) {
  CLI::App app("test", "qstep");
  int exit_code = 0;
  add_quantize_command(app, exit_code);
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  words.push_back("quantize");
  testing::internal::CaptureStdout();
  try {
    app.parse(std::move(words));
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  return testing::internal::GetCapturedStdout();
}

// As numpy.save writes it: float32, or bfloat16 as uint16.
void write_npy(const std::string& path, const Values& x, int64_t rows, int64_t cols, Dtype dtype) {
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}, {}), }}",
                                   dtype == Dtype::kF32 ? "<f4" : "<u2", rows, cols);
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() % 256);
  file += static_cast<char>(header.size() / 256);
  file += header;
  for (const float v : x) {
    const auto bits = std::bit_cast<uint32_t>(v);
    for (int i = dtype == Dtype::kF32 ? 0 : 2; i < 4; ++i) file += static_cast<char>(bits >> 8 * i);
  }
  data::write_file(path, file);
}

template <class T>
std::vector<T> dataset(const Hdf5File& file, const std::string& name, Hdf5Type type) {
  const data::Hdf5Dataset found = file.open_dataset(name);
  EXPECT_EQ(found.type(), type) << name;
  std::vector<T> values(found.size());
  found.read(0, found.size(), values.data());
  return values;
}

bool four_bits(QuantFormat format) {
  return format == QuantFormat::kNvfp4 || format == QuantFormat::kMxfp4;
}

// The codes one per byte, out of what is stored.
std::vector<uint8_t> unpacked(const std::vector<uint8_t>& stored, const reference::Quantized& q) {
  if (!four_bits(q.spec.format)) return stored;
  std::vector<uint8_t> codes;
  const int64_t row_bytes = (q.k + 1) / 2;
  EXPECT_EQ(stored.size(), static_cast<size_t>(q.rows * row_bytes));
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t c = 0; c < 2 * row_bytes; ++c) {
      const int code = stored[static_cast<size_t>(r * row_bytes + c / 2)] >> (c % 2 == 0 ? 0 : 4);
      if (c < q.k) {
        codes.push_back(code & 15);
      } else {
        EXPECT_EQ(code & 15, 0) << "the nibble behind an odd row";
      }
    }
  }
  return codes;
}

// Everything that a group of the file holds. value_factor: what decoded values are multiplied with
// in place of the operand's own factor; 0: nothing else.
void expect_group(const Hdf5File& file, const std::string& group, const reference::Quantized& q,
                  float value_factor = 0) {
  EXPECT_EQ(file.read_string(group, "quantizer"), precision::describe(q.spec));
  EXPECT_EQ(file.read_string(group, "spec.format"), name(q.spec.format));
  EXPECT_EQ(file.read_string(group, "spec.amax"), name(q.spec.amax));
  EXPECT_EQ(file.read_u64(group, "spec.hadamard"), static_cast<uint64_t>(q.spec.hadamard));
  EXPECT_EQ(file.read_u64(group, "rows"), static_cast<uint64_t>(q.rows));
  EXPECT_EQ(file.read_u64(group, "cols"), static_cast<uint64_t>(q.k));
  EXPECT_EQ(unpacked(dataset<uint8_t>(file, group + "/codes", Hdf5Type::kU8), q), q.codes);

  const bool has_bytes = !is_fp8_format(q.spec.format);
  ASSERT_EQ(file.exists(group + "/block_scales"), has_bytes);
  ASSERT_EQ(file.exists(group + "/block_scales_128x4"), has_bytes);
  if (has_bytes) {
    const auto plain = dataset<uint8_t>(file, group + "/block_scales", Hdf5Type::kU8);
    ASSERT_EQ(plain.size(), q.blocks.size());
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(plain[i], q.blocks[i].code) << i;
    EXPECT_EQ(file.read_u64(group + "/block_scales", "rows"), static_cast<uint64_t>(q.scale_rows));
    EXPECT_EQ(file.read_u64(group + "/block_scales", "cols"), static_cast<uint64_t>(q.scale_k));

    std::vector<uint8_t> swizzled(
        static_cast<size_t>(precision::swizzled_scale_bytes(q.rows, q.scale_k)));
    for (int64_t r = 0; r < q.rows; ++r) {
      for (int64_t c = 0; c < q.scale_k; ++c) {
        swizzled[static_cast<size_t>(precision::swizzled_scale_offset(r, c, q.scale_k))] =
            q.block_of(r, c * q.spec.block.k).code;
      }
    }
    EXPECT_EQ(dataset<uint8_t>(file, group + "/block_scales_128x4", Hdf5Type::kU8), swizzled);
  }
  ASSERT_EQ(file.exists(group + "/tile_scales"), !q.tile_scales.empty());
  if (!q.tile_scales.empty()) {
    EXPECT_EQ(dataset<float>(file, group + "/tile_scales", Hdf5Type::kF32), q.tile_scales);
  }

  const auto dequantized = dataset<float>(file, group + "/dequantized", Hdf5Type::kF32);
  ASSERT_EQ(dequantized.size(), q.values.size());
  const float factor = value_factor != 0 ? value_factor : q.scale / q.denominator;
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t c = 0; c < q.k; ++c) {
      const float by = q.tile_scales.empty() ? factor : q.tile_scale_of(r, c);
      ASSERT_EQ(dequantized[q.index(r, c)], q.values[q.index(r, c)] * by) << r << ", " << c;
    }
  }
}

class QuantizeCommand : public testing::Test {
 protected:
  // A source of the given shape, written to x.npy; quantized by the reference as `random` says.
  void write_source(int64_t rows, int64_t cols, Dtype dtype = Dtype::kF32) {
    rows_ = rows;
    cols_ = cols;
    dtype_ = dtype;
    x_ = test::quant_data(test::Data::kNarrow, rows, cols, dtype, 42);
    write_npy(dir_ / "x.npy", x_, rows, cols, dtype);
  }
  reference::Quantized expected(const QuantSpec& spec, Orientation orientation,
                                LinearTensor tensor = LinearTensor::kX) const {
    // One quantization of the weight serves all micro-batches (numerics 4.3).
    const uint64_t micro_batch = tensor == LinearTensor::kW ? 0 : 2;
    ops::QuantRandom random{.seed = 9, .step = 3, .micro_batch = micro_batch, .module = 5};
    random.slot = static_cast<uint32_t>(tensor);
    random.gemm_row = kOperandsOf[random.slot].row_gemm;
    random.gemm_column = kOperandsOf[random.slot].column_gemm;
    return reference::quantize(x_, rows_, cols_, spec, orientation,
                               {.random = random, .dtype = dtype_, .delayed_scale = 0.75f});
  }
  Hdf5File quantize(Words words) const {
    const Words more{"--input", dir_ / "x.npy",  "-o", dir_ / "q.h5", "--seed", "9", "--step",
                     "3",       "--micro-batch", "2",  "--module",    "5"};
    const bool delayed = std::find(words.begin(), words.end(), "delayed") != words.end();
    words.insert(words.end(), more.begin(), more.end());
    if (delayed) words.insert(words.end(), {"--delayed-scale", "0.75"});
    if (dtype_ == Dtype::kBf16) words.push_back("--bf16");
    run(words);
    return Hdf5File::open(dir_ / "q.h5");
  }

  TempDir dir_;
  int64_t rows_ = 0, cols_ = 0;
  Dtype dtype_ = Dtype::kF32;
  Values x_;
};

// ---- content --------------------------------------------------------------------------------

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

// ---- mistakes -------------------------------------------------------------------------------

// The text of the Error with this code.
std::string refusal(const Words& words, ops::ExitCode code) {
  try {
    run(words);
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "not refused";
  return {};
}

TEST_F(QuantizeCommand, MistakesInTheQuantizerAreToldTogether) {
  write_source(16, 16);
  Words words{"--input", dir_ / "x.npy", "-o", dir_ / "q.h5"};
  const auto with = [&](const Words& more) {
    Words all = words;
    all.insert(all.end(), more.begin(), more.end());
    return refusal(all, ops::ExitCode::kConfig);
  };
  EXPECT_NE(with({}).find("write a --format"), std::string::npos);
  const std::string both =
      with({"--format", "mxfp8-e4m3", "--rounding", "stochastic", "--hadamard", "7"});
  EXPECT_NE(both.find("is not rounded stochastically"), std::string::npos) << both;
  EXPECT_NE(both.find("hadamard = 7"), std::string::npos) << both;
  EXPECT_NE(with({"--recipe", "bf16", "--operand", "x_fprop"}).find("nothing to quantize"),
            std::string::npos);
  EXPECT_NE(with({"--recipe", "nvfp4", "--operand", "x_fprop", "--block", "1x16"})
                .find("block = 1x16 with --recipe"),
            std::string::npos);
  EXPECT_NE(with({"--recipe", "nvfp5", "--operand", "x_fprop"}).find("nvfp4"), std::string::npos);
  EXPECT_NE(with({"--format", "nvfp4", "--hadamard", "0x10"}).find("hadamard = 0x10"),
            std::string::npos);
  EXPECT_NE(with({"--format", "nvfp4", "--delayed-scale", "2"}).find("add --amax delayed"),
            std::string::npos);
  EXPECT_NE(with({"--recipe", "nvfp4", "--operand", "x_fprop", "--delayed-scale", "2"})
                .find("leave --delayed-scale out"),
            std::string::npos);
  words.push_back("--format");
  words.push_back("nvfp5");
  EXPECT_THROW(run(words), CLI::ParseError);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "q.h5"));
}

TEST_F(QuantizeCommand, TheInputIsNeverReplaced) {
  write_source(16, 32);
  const std::string before = data::read_file(dir_ / "x.npy");
  for (const std::string& output : {dir_ / "x.npy", dir_ / "./x.npy"}) {
    EXPECT_NE(refusal({"--format", "nvfp4", "--input", dir_ / "x.npy", "-o", output},
                      ops::ExitCode::kConfig)
                  .find("is the file of --input"),
              std::string::npos);
  }
  EXPECT_EQ(data::read_file(dir_ / "x.npy"), before);
}

TEST_F(QuantizeCommand, UnfitInputs) {
  const Words words{"--format", "nvfp4", "--input", dir_ / "x.npy", "-o", dir_ / "q.h5"};
  const auto with = [&](const Words& more) {
    Words all = words;
    all.insert(all.end(), more.begin(), more.end());
    return refusal(all, ops::ExitCode::kData);
  };
  write_npy(dir_ / "x.npy", {}, 0, 5, Dtype::kF32);
  EXPECT_NE(with({}).find("expected elements, found [0, 5]"), std::string::npos);
  write_source(24, 40, Dtype::kBf16);
  EXPECT_NE(with({}).find("add --bf16"), std::string::npos);
  EXPECT_NE(with({"--bf16", "--hadamard", "16"}).find("multiple of 16 columns"), std::string::npos);
  EXPECT_NE(
      with({"--bf16", "--hadamard", "16", "--orientation", "column"}).find("multiple of 16 rows"),
      std::string::npos);
  write_source(24, 40, Dtype::kF32);
  EXPECT_NE(with({"--bf16"}).find("leave --bf16 out"), std::string::npos);
  EXPECT_THROW(run({"--format", "nvfp4", "--input", dir_ / "no.npy", "-o", dir_ / "q.h5"}),
               data::Error);
}

TEST_F(QuantizeCommand, AnExistingFileStaysUntilTheNewOneIsComplete) {
  write_source(512, 512);
  data::write_file(dir_ / "q.h5", "before");
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 1 << 18;  // a disk that fills up
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string text = data::error_of(
      [&] {
        quantize({"--format", "nvfp4"});
      },
      data::ErrorKind::kDisk);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_NE(text.find("larger than the file system"), std::string::npos) << text;
  EXPECT_EQ(data::read_file(dir_ / "q.h5"), "before");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.str()), {}), 2);

  const Hdf5File file = quantize({"--format", "nvfp4"});
  expect_group(file, "/rowwise",
               expected(precision::default_spec(QuantFormat::kNvfp4), Orientation::kRowwise));
  data::error_of(
      [&] {
        run({"--format", "nvfp4", "--input", dir_ / "x.npy", "-o", dir_ / "no/folder.h5"});
      },
      data::ErrorKind::kDisk);
}

}  // namespace
}  // namespace qstep::trainer
