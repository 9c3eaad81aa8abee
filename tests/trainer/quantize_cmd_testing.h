// `qstep quantize` as a user calls it, on a matrix in a .npy file, and its output beside what the
// tests' own quantizers give.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "precision/scale_layout.h"
#include "tests/data/test_files.h"
#include "tests/ops/quantize_testing.h"
#include "trainer/command/commands.h"
#include "trainer/model/linear_operands.h"

namespace qstep::trainer {

using data::Hdf5File;
using data::Hdf5Type;
using data::TempDir;
using ops::Dtype;
using ops::Orientation;
using precision::QuantFormat;
using precision::QuantSpec;
using test::Values;
namespace reference = test::reference;

using Words = std::vector<std::string>;

// stdout of `qstep quantize WORDS...`; exceptions pass.
inline std::string run(Words words) {
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
inline void write_npy(const std::string& path, const Values& x, int64_t rows, int64_t cols,
                      Dtype dtype) {
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

inline bool four_bits(QuantFormat format) {
  return format == QuantFormat::kNvfp4 || format == QuantFormat::kMxfp4;
}

// The codes one per byte, out of what is stored.
inline std::vector<uint8_t> unpacked(const std::vector<uint8_t>& stored,
                                     const reference::Quantized& q) {
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
inline void expect_group(const Hdf5File& file, const std::string& group,
                         const reference::Quantized& q, float value_factor = 0) {
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

}  // namespace qstep::trainer
