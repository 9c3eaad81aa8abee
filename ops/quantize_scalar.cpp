#include "ops/quantize_scalar.h"

#include <algorithm>

#include "ops/unit_plan.h"

namespace qstep::ops {

using precision::AmaxScope;
using precision::BlockScale;
using precision::ElementFormat;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::RandomWords;
using precision::Rounding;
using precision::ScaleRule;
using precision::UnitContext;
using precision::UnitPlan;
using precision::UnitScales;

namespace {

// Random words of a unit whose first element has this index (numerics 4.3).
struct UnitRandom {
  const UnitPlan& plan;
  uint64_t first;

  RandomWords<float> call(uint64_t number, uint32_t stream) const {
    return precision::random_words<float>(plan.seed, static_cast<uint32_t>(number),
                                          static_cast<uint32_t>(number >> 32), stream, plan.step);
  }
  RandomWords<float> operator()(int block, uint32_t stream) const {
    const uint64_t begin = first + static_cast<uint64_t>(16 * block);
    if (begin % 16 == 0) return call(begin / 16, stream);
    // Lines whose length is no multiple of 16: the bytes lie in two calls.
    const RandomWords<float> calls[2]{call(begin / 16, stream), call(begin / 16 + 1, stream)};
    RandomWords<float> words{};
    for (int i = 0; i < 16; ++i) {
      const int at = static_cast<int>(begin % 16) + i;
      words.w[i / 4] |= precision::random_byte(calls[at / 16], at % 16) << (8 * (i % 4));
    }
    return words;
  }
  uint32_t scale_word(int block, uint32_t stream) const {
    const uint64_t number = first / 16 + static_cast<uint64_t>(block);
    return call(number / 4, stream).w[number % 4];
  }
};

class ScalarQuantizer {
 public:
  ScalarQuantizer(const QuantizedTensor& q, const Tensor& x, const QuantCall& call)
      : q_(q),
        x_(x),
        call_(call),
        spec_(q.spec),
        plan_(unit_plan(q.spec, q.orientation, x.dtype, call.random)),
        along_rows_(q.orientation == Orientation::kRowwise || spec_.block.square()),
        turned_(spec_.block.square() && q.orientation == Orientation::kColumnwise),
        lines_(along_rows_ ? x.rows : x.cols),
        length_(along_rows_ ? x.cols : x.rows) {
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
      for (int64_t line = 0; line < lines_; line += height) {
        if (spec_.amax == AmaxScope::kRow) set_line_factors(line);
        for (int64_t i = 0; i < length_; i += plan_.unit) quantize_units(line, height, i);
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
    if (line >= lines_ || i >= length_) return 0.0f;
    const int64_t at = along_rows_ ? line * x_.ld + i : i * x_.ld + line;
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
    if (is_fp8_format(spec_.format) && (precision::is_nan(amax) || precision::is_nan(v))) {
      return precision::not_a_number<float>();
    }
    return precision::max(precision::magnitude(v), amax);
  }
  float line_amax(int64_t line) const {
    float v[precision::kMaxUnit], amax = 0.0f;
    for (int64_t first = 0; first < length_; first += plan_.unit) {
      load(line, first, v);
      for (int i = 0; i < plan_.unit; ++i) amax = larger(amax, v[i]);
    }
    return amax;
  }
  float tensor_amax() const {
    float amax = 0.0f;
    for (int64_t line = 0; line < lines_; ++line) amax = larger(amax, line_amax(line));
    return amax;
  }

  void set_tensor_factors() {
    if (!q_.scale) return;
    float& stored = *q_.scale.as<float>();
    if (spec_.format != QuantFormat::kNvfp4) {
      stored = 4.0f;  // mxfp4 with 3/4 of headroom: 4/3
    } else if (spec_.rounding == Rounding::kMsEden) {
      context_.outer_amax = precision::ms_eden_factor(tensor_amax());
      stored = context_.outer_amax;
    } else {
      context_.outer_amax = tensor_amax();
      context_.outer = precision::nvfp4_factors(context_.outer_amax, plan_.range, plan_.headroom);
      stored = context_.outer_amax;
    }
  }
  void set_line_factors(int64_t line) {
    const float amax = line_amax(line);
    context_.outer_amax = amax;
    context_.outer = precision::nvfp4_factors(amax, plan_.range, plan_.headroom);
    q_.tile_scales.as<float>()[line * q_.tile_scales.ld] = amax * (1.0f / plan_.range);
  }

  // Of element i of a line, in the order of the logical tensor.
  uint64_t random_index(int64_t line, int64_t i) const {
    const LogicalPlace& place = call_.place;
    const int64_t rows = place.logical_rows(x_.rows), cols = place.logical_cols(x_.cols);
    const int64_t row = place.logical_row(along_rows_ ? line : i);
    const int64_t col = place.logical_col(along_rows_ ? i : line);
    const uint64_t above = call_.random.micro_batch * static_cast<uint64_t>(rows * cols);
    return above + static_cast<uint64_t>(along_rows_ ? row * cols + col : col * rows + row);
  }

  // The units that begin at element `first` of `height` lines: one, or those of a square block.
  void quantize_units(int64_t line, int64_t height, int64_t first) {
    const int64_t n = std::min(height, lines_ - line);
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
                                         UnitRandom{plan_, random_index(line + l, first)});
        });
      }
      store(line + l, first, v[l], codes, scales);
    }
  }

  // 4/6 for a block of 16x16: its rows' errors are added up in halves, 8 + 8, 4 + 4, ...
  BlockScale<float> four_over_six(const float (*v)[precision::kMaxUnit], int64_t n) const {
    const precision::FourOverSixTensor<float> tensor{context_.outer_amax, plan_.range};
    const auto six =
        precision::four_over_six_scale(context_.block_amax, context_.outer, plan_.headroom, 1.0f);
    const auto four =
        precision::four_over_six_scale(context_.block_amax, context_.outer, plan_.headroom, 1.5f);
    const auto error = [&](const BlockScale<float>& scale) {
      float row[16] = {};
      for (int64_t l = 0; l < n; ++l) {
        row[l] = precision::four_over_six_error<16>(v[l], scale, tensor, spec_.four_over_six);
      }
      for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; ++l) {
          row[l] = spec_.four_over_six == FourOverSix::kAbsMax
                       ? precision::max(row[l + half], row[l])
                       : row[l] + row[l + half];
        }
      }
      return row[0];
    };
    return error(four) < error(six) ? four : six;
  }

  void quantize_elements() {
    const bool e4m3 = spec_.format == QuantFormat::kFp8E4m3;
    const float fp8_max = e4m3 ? precision::kElement<ElementFormat::kE4m3>.max
                               : precision::kElement<ElementFormat::kE5m2>.max;
    const auto scale_of = [&](float amax) {
      return precision::fp8_scale(amax, fp8_max, precision::kMaxFloat,
                                  spec_.scale == ScaleRule::kFp32Pow2);
    };
    const bool per_line = spec_.amax == AmaxScope::kRow;
    float scale = 1.0f;
    if (spec_.amax == AmaxScope::kDelayed) scale = *call_.delayed_scale.as<float>();
    if (spec_.amax == AmaxScope::kTensor) scale = scale_of(tensor_amax());
    if (q_.scale) *q_.scale.as<float>() = 1.0f / scale;
    for (int64_t line = 0; line < lines_; ++line) {
      if (per_line) {
        scale = scale_of(line_amax(line));
        q_.tile_scales.as<float>()[line * q_.tile_scales.ld] = 1.0f / scale;
      }
      for (int64_t i = 0; i < length_; ++i) {
        const float v = source(line, i) * scale;
        const float rounded = e4m3 ? precision::round_nearest<ElementFormat::kE4m3>(v)
                                   : precision::round_nearest<ElementFormat::kE5m2>(v);
        store_element(line, i, rounded, rounded);
      }
    }
  }

  void store_element(int64_t line, int64_t i, float decoded, float rounded) {
    const int64_t ld = q_.values.ld;
    q_.values.as<Bf16>()[along_rows_ ? line * ld + i : i * ld + line] = precision::to_bf16(decoded);
    const int64_t row = turned_ ? i : line, k = turned_ ? line : i;
    e_.codes[static_cast<size_t>(row * e_.k + k)] =
        encode_element(element_of(spec_.format), rounded);
  }
  void store(int64_t line, int64_t first, const float* decoded, const float* rounded,
             const UnitScales<float>& scales) {
    const int64_t n = std::min<int64_t>(plan_.unit, length_ - first);
    for (int64_t i = 0; i < n; ++i) store_element(line, first + i, decoded[i], rounded[i]);
    for (int64_t b = 0; b * spec_.block.k < n && !e_.block_scales.empty(); ++b) {
      const int64_t i = first + b * spec_.block.k;
      const int64_t row = (turned_ ? i : line) / spec_.block.rows;
      const int64_t k = (turned_ ? line : i) / spec_.block.k;
      e_.block_scales[static_cast<size_t>(row * e_.scale_k + k)] =
          spec_.format == QuantFormat::kNvfp4
              ? precision::encode<ElementFormat::kE4m3>(scales.block[b])
              : static_cast<uint8_t>(precision::bits(scales.block[b]) >> 23);
    }
    const precision::BlockShape tile = scale_tile(spec_);
    if (tile.k > 0) {
      const int64_t row = (turned_ ? first : line) / tile.rows;
      const int64_t k = (turned_ ? line : first) / tile.k;
      q_.tile_scales.as<float>()[row * q_.tile_scales.ld + k] = scales.outer;
    }
  }

  const QuantizedTensor& q_;
  const Tensor& x_;
  const QuantCall& call_;
  const QuantSpec& spec_;
  UnitPlan plan_;
  bool along_rows_;  // lines are rows of the source; square blocks always run along them
  bool turned_;      // the operand's rows are not the lines
  int64_t lines_, length_;
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
