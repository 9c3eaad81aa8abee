// One operand as a GPU's matrix units read it, made by a GPU's quantizers thread by thread on the
// host, with what it decodes to on a CPU.
#pragma once

#include <algorithm>

#include "tests/ops/quantize_host_launch.h"
#include "tests/ops/quantize_testing.h"

namespace qstep::test {

struct CodeSide {
  // `source` is the operand [rows, k] rowwise, its transpose columnwise.
  CodeSide(const QuantSpec& spec, Orientation orientation, QuantInput source)
      : in(std::move(source)),
        row(orientation == Orientation::kRowwise),
        rows(row ? in.shape.rows : in.shape.cols),
        k(row ? in.shape.cols : in.shape.rows),
        side(in.side(spec, orientation)),
        cpu(in.side(spec, orientation)),
        codes(Dtype::kU8, rows, code_bytes(ops::native_form(spec), k)),
        scales(scales_are_bytes(ops::native_form(spec).scales) ? Dtype::kU8 : Dtype::kF32, 1,
               std::max<int64_t>(1, block_scale_count(ops::native_form(spec).scales, rows, k))) {
    side.q.codes = codes;
    if (scale_block_k(ops::native_form(spec).scales) > 0) side.q.block_scales = scales;
    ops::device::quantize_with(HostQuantizeLaunch(), row ? side.q : ops::QuantizedTensor{},
                               row ? ops::QuantizedTensor{} : side.q, in.tensor, in.call);
    Quantizer()(row ? cpu.q : ops::QuantizedTensor{}, row ? ops::QuantizedTensor{} : cpu.q, in);
  }
  CodeSide(const QuantSpec& spec, Orientation orientation, int64_t n_rows, int64_t length,
           uint64_t seed)
      : CodeSide(spec, orientation,
                 QuantInput(Data::kNarrow,
                            orientation == Orientation::kRowwise ? Shape{n_rows, length}
                                                                 : Shape{length, n_rows},
                            Dtype::kBf16, seed)) {}

  ops::Operand operand() const { return ops::operand(side.q); }
  // In FP64, with all factors.
  double decoded(int64_t r, int64_t i) const {
    const ops::Operand x = ops::operand(cpu.q);
    double v = row ? cpu.value(r, i) : cpu.value(i, r);
    if (x.scale != nullptr) v *= double{*x.scale} / double{x.scale_denominator};
    if (x.tile_scales != nullptr) {
      const int64_t per_row = (x.k + x.tile_k - 1) / x.tile_k;
      v *= double{x.tile_scales[r / x.tile_rows * per_row + i / x.tile_k]};
    }
    return v;
  }

  QuantInput in;
  bool row;
  int64_t rows, k;
  QuantSide side, cpu;
  Guarded codes, scales;
};

}  // namespace qstep::test
