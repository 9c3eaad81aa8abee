#include "ops/quantize/quantize_scalar.h"

#include <algorithm>

#include "ops/quantize/quantize_factors.h"
#include "ops/quantize/quantize_lines.h"

namespace qstep::ops {

using precision::AmaxScope;
using precision::BlockScale;
using precision::ElementFormat;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::UnitContext;
using precision::UnitPlan;
using precision::UnitScales;

namespace {

class ScalarQuantizer {
 public:
  ScalarQuantizer(const QuantizedTensor& q, const Tensor& x, const QuantCall& call)
      : q_(q),
        x_(x),
        call_(call),
        spec_(q.spec),
        lines_(quant_lines(q, x, call)),
        plan_(lines_.plan),
        turned_(is_turned(q)) {
    const bool rowwise = q.orientation == Orientation::kRowwise;
    e_.rows = rowwise ? x.rows : x.cols;
    e_.k = rowwise ? x.cols : x.rows;
    e_.codes.resize(static_cast<size_t>(x.size()));
    if (spec_.block.whole_tensor()) return;
    const int64_t block_rows = spec_.block.rows, block_k = spec_.block.k;
    e_.scale_rows = (e_.rows + block_rows - 1) / block_rows;
    e_.scale_k = (e_.k + block_k - 1) / block_k;
    if (!is_fp8_format(spec_.format)) {
      e_.block_scales.resize(static_cast<size_t>(e_.scale_rows * e_.scale_k));
    }
  }

  EncodedTensor run() {
    if (is_fp8_format(spec_.format) && spec_.block.whole_tensor()) {
      quantize_elements();
    } else {
      set_tensor_factors();
      const int64_t height = spec_.block.square() ? spec_.block.rows : 1;
      for (int64_t line = 0; line < lines_.lines(); line += height) {
        if (spec_.amax == AmaxScope::kRow) set_line_factors(line);
        for (int64_t i = 0; i < lines_.length(); i += plan_.unit) quantize_units(line, height, i);
      }
    }
    if (q_.scale) e_.scale = *q_.scale.as<float>();
    if (q_.tile_scales) {
      const Tensor& t = q_.tile_scales;
      e_.tile_scales.assign(t.as<float>(), t.as<float>() + t.size());
    }
    return std::move(e_);
  }

 private:
  // Element i of a line: the quantizer runs along lines. Zero beyond the tensor.
  float source(int64_t line, int64_t i) const {
    if (line >= lines_.lines() || i >= lines_.length()) return 0.0f;
    const int64_t at = lines_.along_rows ? line * x_.ld + i : i * x_.ld + line;
    return x_.dtype == Dtype::kBf16 ? precision::to_float(x_.as<Bf16>()[at]) : x_.as<float>()[at];
  }
  // A unit behind the Hadamard transform.
  void load(int64_t line, int64_t first, float* v) const {
    for (int i = 0; i < plan_.unit; ++i) v[i] = source(line, first + i);
    precision::dispatch_unit(plan_.unit,
                             [&](auto unit) { precision::hadamard_unit<unit>(plan_, v); });
  }
  // A NaN is left out, but for fp8, whose scale it makes 1 (numerics 5).
  float larger(float amax, float v) const {
    if (lines_.keeps_nan() && (precision::is_nan(amax) || precision::is_nan(v))) {
      return precision::not_a_number<float>();
    }
    return precision::max(precision::magnitude(v), amax);
  }
  float line_amax(int64_t line) const {
    float v[precision::kMaxUnit], amax = 0.0f;
    for (int64_t first = 0; first < lines_.length(); first += plan_.unit) {
      load(line, first, v);
      for (int i = 0; i < plan_.unit; ++i) amax = larger(amax, v[i]);
    }
    return amax;
  }
  float tensor_amax() const {
    float amax = 0.0f;
    for (int64_t line = 0; line < lines_.lines(); ++line) amax = larger(amax, line_amax(line));
    return amax;
  }

  void set_tensor_factors() {
    if (!q_.scale) return;
    const bool has_amax = spec_.format == QuantFormat::kNvfp4;
    const TensorFactors factors = tensor_factors(plan_, has_amax ? tensor_amax() : 0.0f, 1.0f);
    context_.outer_amax = factors.outer_amax;
    context_.outer = factors.outer;
    *q_.scale.as<float>() = factors.stored;
  }
  void set_line_factors(int64_t line) {
    const float amax = line_amax(line);
    context_.outer_amax = amax;
    context_.outer = precision::nvfp4_factors(amax, plan_.range, plan_.headroom);
    q_.tile_scales.as<float>()[line * q_.tile_scales.ld] = row_factor(plan_, amax);
  }

  // The units that begin at element `first` of `height` lines: one, or those of a square block.
  void quantize_units(int64_t line, int64_t height, int64_t first) {
    const int64_t n = std::min(height, lines_.lines() - line);
    float v[precision::kMaxUnit][precision::kMaxUnit];
    context_.block_amax = 0.0f;
    uint32_t raw = 0;
    for (int64_t l = 0; l < n; ++l) {
      load(line + l, first, v[l]);
      for (int i = 0; height > 1 && i < plan_.unit; ++i) {
        context_.block_amax = larger(context_.block_amax, v[l][i]);
      }
    }
    UnitScales<float> scales;
    float codes[precision::kMaxUnit];
    const bool joint = height > 1 && spec_.four_over_six != FourOverSix::kNone;
    const BlockScale<float> chosen = joint ? four_over_six(v, n) : BlockScale<float>{};
    for (int64_t l = 0; l < n; ++l) {
      if (joint) {
        scales.block[0] = chosen.s;
        precision::round_block<ElementFormat::kE2m1, 16>(v[l], raw, chosen.enc, chosen.s, codes);
      } else {
        precision::dispatch_unit(plan_.unit, [&](auto unit) {
          precision::quantize_unit<unit>(plan_, v[l], context_, scales, raw, codes,
                                         LineRandom{lines_, line + l, first});
        });
      }
      store(line + l, first, v[l], codes, scales);
    }
  }

  // 4/6 for a block of 16x16.
  BlockScale<float> four_over_six(const float (*v)[precision::kMaxUnit], int64_t n) const {
    const JointScales scales = joint_scales(plan_, context_);
    JointErrors rows[kJointRows];
    for (int64_t l = 0; l < n; ++l) {
      rows[l] = joint_errors(plan_, v[l], scales, context_.outer_amax);
    }
    return better_of(scales, rows, spec_.four_over_six);
  }

  void quantize_elements() {
    const bool e4m3 = spec_.format == QuantFormat::kFp8E4m3;
    const bool per_line = spec_.amax == AmaxScope::kRow;
    const bool delayed = spec_.amax == AmaxScope::kDelayed;
    float scale = 1.0f;
    if (!per_line) {
      const TensorFactors factors = tensor_factors(
          plan_, delayed ? 0.0f : tensor_amax(), delayed ? *call_.delayed_scale.as<float>() : 1.0f);
      scale = factors.scale;
      *q_.scale.as<float>() = factors.stored;
    }
    for (int64_t line = 0; line < lines_.lines(); ++line) {
      if (per_line) {
        const float amax = line_amax(line);
        scale = fp8_element_scale(plan_, amax);
        q_.tile_scales.as<float>()[line * q_.tile_scales.ld] = row_factor(plan_, amax);
      }
      for (int64_t i = 0; i < lines_.length(); ++i) {
        const float v = source(line, i) * scale;
        const float rounded = e4m3 ? precision::round_nearest<ElementFormat::kE4m3>(v)
                                   : precision::round_nearest<ElementFormat::kE5m2>(v);
        store_element(line, i, rounded, rounded);
      }
    }
  }

  void store_element(int64_t line, int64_t i, float decoded, float rounded) {
    const int64_t ld = q_.values.ld;
    q_.values.as<Bf16>()[lines_.along_rows ? line * ld + i : i * ld + line] =
        precision::to_bf16(decoded);
    const auto [row, k] = operand_index(turned_, line, i);
    e_.codes[static_cast<size_t>(row * e_.k + k)] =
        encode_element(element_of(spec_.format), rounded);
  }
  void store(int64_t line, int64_t first, const float* decoded, const float* rounded,
             const UnitScales<float>& scales) {
    const int64_t n = std::min<int64_t>(plan_.unit, lines_.length() - first);
    for (int64_t i = 0; i < n; ++i) store_element(line, first + i, decoded[i], rounded[i]);
    for (int64_t b = 0; b * spec_.block.k < n && !e_.block_scales.empty(); ++b) {
      const int64_t i = first + b * spec_.block.k;
      const auto [row, k] = operand_index(turned_, line, i);
      e_.block_scales[static_cast<size_t>(row / spec_.block.rows * e_.scale_k +
                                          k / spec_.block.k)] =
          encode_block_scale(spec_.format, scales.block[b]);
    }
    if (const precision::BlockShape tile = lines_.tile; tile.k > 0) {
      const auto [row, k] = operand_index(turned_, line, first);
      q_.tile_scales.as<float>()[row / tile.rows * q_.tile_scales.ld + k / tile.k] = scales.outer;
    }
  }

  const QuantizedTensor& q_;
  const Tensor& x_;
  const QuantCall& call_;
  const QuantSpec& spec_;
  QuantLines lines_;
  const UnitPlan& plan_;
  bool turned_;
  UnitContext<float> context_{};
  EncodedTensor e_;
};

}  // namespace

EncodedTensor quantize_scalar(const QuantizedTensor& q, const Tensor& x, const QuantCall& call) {
  check(call.join == nullptr, "quantize_scalar: joins no amaxes");
  const bool rowwise = q.orientation == Orientation::kRowwise;
  QuantizedTensor of_any_source = q;  // x is what is quantized, whatever it was made from
  of_any_source.spec.source = precision::Source::kHighPrecision;
  check_quantize(rowwise ? of_any_source : QuantizedTensor{},
                 rowwise ? QuantizedTensor{} : of_any_source, x, call);
  return ScalarQuantizer(q, x, call).run();
}

}  // namespace qstep::ops
