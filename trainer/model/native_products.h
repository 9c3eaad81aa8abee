// Which products of the linear layers a backend multiplies by their codes, natively: asked of it,
// for the shapes of this run. All others are emulated: operands are decoded to BF16, exactly.
#pragma once

#include <compare>
#include <functional>
#include <map>
#include <tuple>
#include <utility>

#include "ops/ops.h"
#include "trainer/config/layer_precision.h"

namespace qstep::trainer {

class NativeProducts {
 public:
  // Of a backend that decodes everything.
  NativeProducts() = default;
  // Asks `ops`, which outlives this. compute: the type of activations.
  NativeProducts(ops::Ops& ops, ops::Dtype compute)
      : NativeProducts([&ops](const ops::CodeProduct& p) { return ops.multiplies_codes(p); },
                       compute) {}
  // The same of whoever answers in a backend's place.
  using Answer = std::function<bool(const ops::CodeProduct&)>;
  NativeProducts(Answer multiplies_codes, ops::Dtype compute)
      : multiplies_codes_(std::move(multiplies_codes)), compute_(compute) {}

  // A GEMM of a layer of this shape, with micro-batches of n_tokens.
  bool has(const precision::OperandTable& table, precision::Gemm gemm, const LinearShape& shape,
           int64_t n_tokens) const;

 private:
  using Question =
      std::tuple<ops::NativeForm, ops::NativeForm, int64_t, int64_t, int64_t, ops::Dtype>;

  Answer multiplies_codes_;
  ops::Dtype compute_ = ops::Dtype::kBf16;
  mutable std::map<Question, bool> answers_;  // layers repeat each other
};

// d [m,n] of a GEMM: m, n and k.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
};
GemmShape gemm_shape(precision::Gemm gemm, const LinearShape& shape, int64_t n_tokens);

}  // namespace qstep::trainer
