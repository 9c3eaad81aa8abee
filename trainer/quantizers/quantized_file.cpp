#include "trainer/quantizers/quantized_file.h"

#include <algorithm>
#include <cstdio>
#include <type_traits>
#include <vector>

#include "data/content_hash.h"
#include "data/publish.h"
#include "precision/nvfp4.h"
#include "precision/scale_layout.h"
#include "trainer/config/recipe_fields.h"
#include "trainer/model/linear_operands.h"

namespace qstep::trainer {

using data::Hdf5Type;
using ops::EncodedTensor;
using ops::Orientation;
using ops::QuantizedTensor;
using ops::Tensor;
using precision::Bf16;
using precision::QuantFormat;
using precision::QuantSpec;

namespace {

constexpr uint64_t kFormatVersion = 1;
constexpr int64_t kElementsAtOnce = 1 << 20;

bool four_bits(QuantFormat format) {
  return format == QuantFormat::kNvfp4 || format == QuantFormat::kMxfp4;
}

int64_t rows_at_once(int64_t k) {
  return std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(k, 1));
}

uint64_t count(int64_t n) { return static_cast<uint64_t>(n); }

std::string checksum(const Tensor& x) {
  data::ContentHash hash;
  for (int64_t r = 0; r < x.rows; ++r) {
    hash.add(static_cast<const char*>(x.data) + r * x.ld * size_bytes(x.dtype),
             count(x.cols * size_bytes(x.dtype)));
  }
  return hash.hex();
}

}  // namespace

float tensor_factor(const QuantizedTensor& q) {
  return q.scale ? *q.scale.as<float>() / ops::scale_denominator(q.spec) : 1.0f;
}

QuantizedFile::QuantizedFile(const std::string& path)
    : path_(path),
      temporary_(data::temporary_name(path)),
      file_(data::Hdf5File::create(temporary_)) {}

QuantizedFile::~QuantizedFile() {
  if (!temporary_.empty()) std::remove(temporary_.c_str());
}

void QuantizedFile::finish() {
  file_.close();
  data::publish(temporary_, path_);
  temporary_.clear();
}

void QuantizedFile::add(const QuantizedSource& source, const ops::QuantRandom& random) {
  file_.write_attribute("/", "format", "quarterstep quantized tensor");
  file_.write_attribute("/", "format_version", kFormatVersion);
  file_.write_attribute("/", "computed", "emulated on the CPU");
  file_.write_attribute("/", "source", source.path);
  file_.write_attribute("/", "source_type", ops::name(source.tensor.dtype));
  file_.write_attribute("/", "source_xxh3_128", checksum(source.tensor));
  set_shape("/", source.tensor.rows, source.tensor.cols);
  file_.write_attribute("/", "seed", random.seed);
  file_.write_attribute("/", "step", uint64_t{random.step});
  file_.write_attribute("/", "micro_batch", random.micro_batch);
  file_.write_attribute("/", "module", uint64_t{random.module});
  file_.write_attribute("/", "slot", kLinearTensorNames[random.slot]);
}

void QuantizedFile::add(const QuantizedOperand& operand) {
  const bool rowwise = operand.q.orientation == Orientation::kRowwise;
  const std::string group = rowwise ? "/rowwise" : "/columnwise";
  file_.create_group(group);
  add_attributes(group, operand);
  add_codes(group, operand.encoded, four_bits(operand.q.spec.format) ? 4 : 8);
  add_block_scales(group, operand);
  add_dequantized(group, operand.q);
}

void QuantizedFile::add_attributes(const std::string& group, const QuantizedOperand& operand) {
  const QuantSpec& spec = operand.q.spec;
  file_.write_attribute(group, "quantizer", precision::describe(spec));
  for_each_field(spec, [&](const std::string& key, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, int>) {
      file_.write_attribute(group, "spec." + key, count(value));
    } else {
      file_.write_attribute(group, "spec." + key, name(value));
    }
  });
  set_shape(group, operand.encoded.rows, operand.encoded.k);
  const auto number = [&](const char* name, double value) {
    file_.write_attribute(group, name, value);
  };
  number("amax", operand.stats.amax);
  number("scale", double{operand.encoded.scale});
  number("scale_denominator", double{ops::scale_denominator(spec)});
  number("factor", double{tensor_factor(operand.q)});
  if (spec.format == QuantFormat::kNvfp4 && operand.q.scale &&
      spec.rounding != precision::Rounding::kMsEden) {
    const bool headroom = spec.headroom == precision::Headroom::kSixteenSeventeenths;
    const auto factors =
        precision::nvfp4_factors(static_cast<float>(operand.stats.amax),
                                 precision::nvfp4_range(spec.e4m3_max, headroom), headroom);
    number("s_enc", double{factors.s_enc});
    number("s_dec", double{factors.s_dec});
  }
}

void QuantizedFile::set_shape(const std::string& object, int64_t rows, int64_t cols) {
  file_.write_attribute(object, "rows", count(rows));
  file_.write_attribute(object, "cols", count(cols));
}

void QuantizedFile::add_codes(const std::string& group, const EncodedTensor& e, int bits) {
  const std::string object = group + "/codes";
  const int64_t row_bytes = bits == 4 ? (e.k + 1) / 2 : e.k;
  data::Hdf5Dataset codes = file_.create_dataset(object, Hdf5Type::kU8, count(e.rows * row_bytes));
  if (bits == 8) {
    codes.write(0, e.codes.size(), e.codes.data());
  } else {
    std::vector<uint8_t> packed;
    for (int64_t r = 0; r < e.rows; r += rows_at_once(e.k)) {
      const int64_t n = std::min(rows_at_once(e.k), e.rows - r);
      packed.assign(count(n * row_bytes), 0);
      for (int64_t i = 0; i < n; ++i) {
        const uint8_t* const from = e.codes.data() + (r + i) * e.k;
        for (int64_t c = 0; c < e.k; ++c) {
          uint8_t& byte = packed[count(i * row_bytes + c / 2)];
          byte = static_cast<uint8_t>(byte | from[c] << (c % 2 == 0 ? 0 : 4));
        }
      }
      codes.write(count(r * row_bytes), packed.size(), packed.data());
    }
  }
  codes.close();
  set_shape(object, e.rows, row_bytes);
}

void QuantizedFile::add_block_scales(const std::string& group, const QuantizedOperand& operand) {
  const EncodedTensor& e = operand.encoded;
  if (!e.block_scales.empty()) {
    file_.write_dataset(group + "/block_scales", Hdf5Type::kU8, e.block_scales.size(),
                        e.block_scales.data());
    set_shape(group + "/block_scales", e.scale_rows, e.scale_k);

    // The hardware knows no square blocks: each row has its scales.
    std::vector<uint8_t> swizzled(count(precision::swizzled_scale_bytes(e.rows, e.scale_k)));
    for (int64_t r = 0; r < e.rows; ++r) {
      const int64_t row = r / operand.q.spec.block.rows * e.scale_k;
      for (int64_t c = 0; c < e.scale_k; ++c) {
        swizzled[count(precision::swizzled_scale_offset(r, c, e.scale_k))] =
            e.block_scales[count(row + c)];
      }
    }
    file_.write_dataset(group + "/block_scales_128x4", Hdf5Type::kU8, swizzled.size(),
                        swizzled.data());
  }
  if (!e.tile_scales.empty()) {
    file_.write_dataset(group + "/tile_scales", Hdf5Type::kF32, e.tile_scales.size(),
                        e.tile_scales.data());
    set_shape(group + "/tile_scales", operand.q.tile_scales.rows, operand.q.tile_scales.cols);
  }
}

void QuantizedFile::add_dequantized(const std::string& group, const QuantizedTensor& q) {
  const bool rowwise = q.orientation == Orientation::kRowwise;
  const int64_t rows = rowwise ? q.values.rows : q.values.cols;
  const int64_t k = rowwise ? q.values.cols : q.values.rows;
  const Bf16* const values = q.values.as<Bf16>();
  const precision::BlockShape tile = ops::scale_tile(q.spec);
  const int64_t tile_k = tile.k == 0 ? k : tile.k;
  const float factor = tensor_factor(q);

  const std::string object = group + "/dequantized";
  data::Hdf5Dataset dataset = file_.create_dataset(object, Hdf5Type::kF32, count(rows * k));
  std::vector<float> part;
  for (int64_t first = 0; first < rows; first += rows_at_once(k)) {
    const int64_t n = std::min(rows_at_once(k), rows - first);
    part.resize(count(n * k));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = first + i;
      for (int64_t c = 0; c < k; ++c) {
        const Bf16 value = values[rowwise ? r * q.values.ld + c : c * q.values.ld + r];
        const float scale =
            q.tile_scales ? q.tile_scales.as<float>()[r / tile.rows * q.tile_scales.ld + c / tile_k]
                          : factor;
        part[count(i * k + c)] = precision::to_float(value) * scale;
      }
    }
    dataset.write(count(first * k), part.size(), part.data());
  }
  dataset.close();
  set_shape(object, rows, k);
}

}  // namespace qstep::trainer
