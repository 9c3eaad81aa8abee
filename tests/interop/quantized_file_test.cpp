// What qstep quantize writes, read by HDF5's own tools, which know nothing of us.
#include "trainer/quantizers/quantized_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdio.h>

#include <memory>

#include "ops/arena.h"
#include "tests/data/test_files.h"
#include "trainer/quantizers/quantize_matrix.h"

namespace qstep::trainer {
namespace {

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen((command + " 2>&1").c_str(), "r"), pclose);
  if (!pipe) throw std::runtime_error("popen failed");
  std::string output;
  char block[4096];
  while (const size_t n = fread(block, 1, sizeof block, pipe.get())) output.append(block, n);
  return output;
}

// A block whose amax, 6, is the tensor's: S_enc = 448, s = 448, enc = 1, so that the codes are the
// numbers: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
TEST(QuantizedFile, H5dumpReadsCodesScalesAndValues) {
  std::vector<float> x{0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0f, -0.5, -1, -1.5, -2, -3, -4, -6};
  const ops::Tensor tensor = ops::view(std::span(x), 1, 16);
  const MatrixQuantizer quantizer{precision::default_spec(precision::QuantFormat::kNvfp4),
                                  ops::Orientation::kRowwise};
  const QuantizedMatrix made = quantize_matrix(quantizer, tensor, {});
  const data::TempDir dir;
  QuantizedFile file(dir / "q.h5");
  file.add(QuantizedSource{"x.npy", tensor}, {});
  file.add(QuantizedOperand{made.q, made.encoded, made.stats});
  file.finish();

  const auto expect = [&](const std::string& command, const std::string& part) {
    const std::string output = output_of(command + " " + (dir / "q.h5"));
    EXPECT_NE(output.find(part), std::string::npos) << part << " not in\n" << output;
  };
  // Two codes a byte, the even element in the low nibble.
  expect("h5dump -y -w 0 -d /rowwise/codes", "16, 50, 84, 118, 152, 186, 220, 254");
  expect("h5dump -y -w 0 -d /rowwise/block_scales", "126");
  expect("h5dump -y -w 0 -d /rowwise/dequantized",
         "0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6");
  expect("h5dump -a /rowwise/amax", "6");
  expect("h5dump -a /rowwise/s_enc", "448");
  expect("h5dump -a /rowwise/scale_denominator", "2688");
  expect("h5dump -a /rowwise/spec.block", "1x16");
  for (const char* part : {"H5T_STD_U8LE", "H5T_IEEE_F32LE", "H5T_IEEE_F64LE",
                           "DATASET \"block_scales_128x4\"", "ATTRIBUTE \"source_xxh3_128\"",
                           "ATTRIBUTE \"s_dec\"", "ATTRIBUTE \"factor\"", "( 512 )"}) {
    expect("h5dump -H", part);
  }
}

}  // namespace
}  // namespace qstep::trainer
