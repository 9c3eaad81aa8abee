#include "trainer/model/product_matrix.h"

#include "trainer/model/native_products.h"

namespace qstep::trainer {

using ops::Dtype;
using precision::BlockShape;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantFormat;
using precision::QuantSpec;

namespace {

QuantSpec spec_of(QuantFormat format, BlockShape block) {
  QuantSpec spec = default_spec(format);
  spec.block = block;
  return spec;
}
QuantSpec fp8_rows() {
  QuantSpec spec = default_spec(QuantFormat::kFp8E4m3);
  spec.amax = precision::AmaxScope::kRow;
  return spec;
}

OperandTable table_of(const QuantSpec& x, const QuantSpec& w, const QuantSpec& dy) {
  OperandTable table;
  for (const OperandSlot slot : {OperandSlot::kXFprop, OperandSlot::kXWgrad}) table[slot] = x;
  for (const OperandSlot slot : {OperandSlot::kWFprop, OperandSlot::kWDgrad}) table[slot] = w;
  for (const OperandSlot slot : {OperandSlot::kDyDgrad, OperandSlot::kDyWgrad}) table[slot] = dy;
  return table;
}

// Whether there are products of this type, into the type that a GEMM writes.
bool multiplies(ops::Ops& ops, Dtype in, Dtype out) {
  constexpr int64_t n = 64;
  const ops::Buffer memory = ops.allocate(3 * n * n * 4);
  ops::Arena arena(memory);
  const ops::Tensor a = arena.take("probe", in, n, n), b = arena.take("probe", in, n, n);
  const ops::Tensor d = arena.take("probe", out, n, n);
  try {
    ops.gemm(d, rowwise(a), rowwise(b), 1.0f, ops::Accumulate::kNo);
    std::vector<float> waited(static_cast<size_t>(d.size()));
    ops.download(waited.data(), d);
    return true;
  } catch (const ops::Error& e) {
    if (e.code() != ops::ExitCode::kGpu) throw;
    return false;
  }
}

}  // namespace

std::vector<FormatRow> product_matrix(ops::Ops& ops) {
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec e5m2 = default_spec(QuantFormat::kFp8E5m2);
  const QuantSpec tiles = spec_of(QuantFormat::kFp8E4m3, {1, 128});
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const QuantSpec mxfp4 = default_spec(QuantFormat::kMxfp4);
  const QuantSpec nvfp4 = default_spec(QuantFormat::kNvfp4);
  const std::pair<std::string_view, OperandTable> formats[] = {
      {"fp8 e4m3", table_of(fp8, fp8, fp8)},
      {"fp8 e4m3, dy e5m2", table_of(fp8, fp8, e5m2)},
      {"fp8 per row", table_of(fp8_rows(), fp8_rows(), fp8_rows())},
      {"fp8 1x128, 128x128", table_of(tiles, spec_of(QuantFormat::kFp8E4m3, {128, 128}), tiles)},
      {"mxfp8", table_of(mxfp8, mxfp8, mxfp8)},
      {"mxfp4", table_of(mxfp4, mxfp4, mxfp4)},
      {"nvfp4", table_of(nvfp4, spec_of(QuantFormat::kNvfp4, {16, 16}), nvfp4)}};

  const bool fp32 = multiplies(ops, Dtype::kF32, Dtype::kF32);
  const bool bf16 = multiplies(ops, Dtype::kBf16, Dtype::kBf16);
  const bool bf16_sums = multiplies(ops, Dtype::kBf16, Dtype::kF32);  // wgrad
  const auto plain = [](bool has) { return has ? Runs::kNative : Runs::kUnsupported; };
  std::vector<FormatRow> rows{{"fp32", {plain(fp32), plain(fp32), plain(fp32)}},
                              {"bf16", {plain(bf16), plain(bf16), plain(bf16_sums)}}};
  constexpr LinearShape kLayer{.out = 4096, .in = 4096};
  constexpr int64_t kTokens = 4096;
  const NativeProducts native(ops, Dtype::kBf16);
  for (const auto& [format, table] : formats) {
    FormatRow& row = rows.emplace_back(FormatRow{.format = format});
    for (size_t gemm = 0; gemm < row.runs.size(); ++gemm) {
      const bool decoded = gemm == precision::kWgrad ? bf16_sums : bf16;
      row.runs[gemm] = native.has(table, static_cast<precision::Gemm>(gemm), kLayer, kTokens)
                           ? Runs::kNative
                       : decoded ? Runs::kEmulated
                                 : Runs::kUnsupported;
    }
  }
  return rows;
}

}  // namespace qstep::trainer
