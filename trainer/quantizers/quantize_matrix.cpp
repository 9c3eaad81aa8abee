#include "trainer/quantizers/quantize_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "data/npy.h"
#include "ops/host_memory.h"

namespace qstep::trainer {

using ops::Dtype;
using ops::Error;
using ops::ExitCode;
using ops::Orientation;
using ops::QuantizedTensor;
using ops::Tensor;

std::string_view name_of(Orientation orientation) {
  return orientation == Orientation::kRowwise ? "rowwise" : "columnwise";
}

Matrix read_matrix(const std::string& path, bool bf16) {
  data::NpyFile file(path);
  const bool words = file.type() == data::NpyType::kBits16;
  const auto refuse = [&](const std::string& text) {
    throw Error(ExitCode::kData, fmt::format("{}: {}", path, text));
  };
  if (words && !bf16) {
    refuse("expected float32, found 16-bit words: add --bf16 if they are bfloat16");
  }
  if (!words && bf16) refuse("expected 16-bit words (--bf16), found float32: leave --bf16 out");
  const auto rows = static_cast<int64_t>(file.rows()), cols = static_cast<int64_t>(file.cols());
  if (rows == 0 || cols == 0) refuse(fmt::format("expected elements, found [{}, {}]", rows, cols));
  Matrix matrix;
  const Dtype dtype = words ? Dtype::kBf16 : Dtype::kF32;
  matrix.memory = ops::allocate_host(rows * cols * ops::size_bytes(dtype));
  matrix.tensor = ops::matrix(matrix.memory.data(), dtype, rows, cols);
  file.read(0, file.rows() * file.cols(), matrix.memory.data());
  return matrix;
}

void check_shape(const MatrixQuantizer& quantizer, const Tensor& x, const std::string& path) {
  const bool rowwise = quantizer.orientation == Orientation::kRowwise;
  const int64_t k = rowwise ? x.cols : x.rows;
  const int d = quantizer.spec.hadamard;
  if (d == 0 || k % d == 0) return;
  throw Error(
      ExitCode::kData,
      fmt::format("{}: expected a multiple of {} {} for the Hadamard transform of the {} "
                  "operand, found {}: pad the matrix with zeros",
                  path, d, rowwise ? "columns" : "rows", name_of(quantizer.orientation), k));
}

namespace {

ops::Buffer lay_out(QuantizedTensor& q, const MatrixQuantizer& quantizer, const Tensor& x) {
  const auto place = [&](ops::Arena arena) {
    q = ops::lay_out_quantized(arena, "quantized", quantizer.spec, quantizer.orientation, x.rows,
                               x.cols);
    return arena.peak_bytes();
  };
  ops::Buffer memory = ops::allocate_host(place(ops::Arena()));
  place(ops::Arena(memory));
  return memory;
}

double speed(const QuantizedTensor& q, const Tensor& x, const ops::QuantCall& call) {
  const bool rowwise = q.orientation == Orientation::kRowwise;
  ops::Workspace workspace;
  double best = 0;
  for (int run = 0; run < 3; ++run) {
    const auto start = std::chrono::steady_clock::now();
    ops::cpu::quantize(rowwise ? q : QuantizedTensor{}, rowwise ? QuantizedTensor{} : q, x, call,
                       workspace);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const auto bytes = static_cast<double>(x.bytes() + q.values.bytes());
    best = std::max(best, bytes * 1e-9 / seconds.count());
  }
  return best;
}

}  // namespace

double QuantizedMatrix::snr_db() const {
  return 10 * std::log10(stats.squared / stats.squared_error);
}

QuantizedMatrix quantize_matrix(const MatrixQuantizer& quantizer, const Tensor& x,
                                ops::QuantCall call) {
  ops::check(quantizer.spec.quantized(), "quantize_matrix: the spec is bf16");
  QuantizedMatrix m;
  m.memory = lay_out(m.q, quantizer, x);
  m.q.spec.source = precision::Source::kHighPrecision;
  m.gb_per_s = speed(m.q, x, call);
  const bool rowwise = quantizer.orientation == Orientation::kRowwise;
  (rowwise ? call.row_stats : call.column_stats) = &m.stats;
  m.encoded = ops::cpu::quantize_encoded(m.q, x, call);
  m.q.spec = quantizer.spec;
  return m;
}

}  // namespace qstep::trainer
