#include "trainer/model/native_products.h"

namespace qstep::trainer {

using precision::Gemm;

GemmShape gemm_shape(Gemm gemm, const LinearShape& shape, int64_t n_tokens) {
  switch (gemm) {
    case Gemm::kFprop:
      return {n_tokens, shape.out, shape.in};
    case Gemm::kDgrad:
      return {n_tokens, shape.in, shape.out};
    case Gemm::kWgrad:
      break;
  }
  return {shape.out, shape.in, n_tokens};
}

bool NativeProducts::has(const precision::OperandTable& table, Gemm gemm, const LinearShape& shape,
                         int64_t n_tokens) const {
  const precision::GemmOperands& operands = precision::kGemms[gemm];
  const ops::NativeForm a = ops::native_form(table[operands.left]);
  const ops::NativeForm b = ops::native_form(table[operands.right]);
  if (!multiplies_codes_ || !a || !b) return false;
  const auto [m, n, k] = gemm_shape(gemm, shape, n_tokens);
  // Gradients of weights are FP32.
  const ops::Dtype out = gemm == Gemm::kWgrad ? ops::Dtype::kF32 : compute_;
  const auto [answer, is_new] = answers_.try_emplace({a, b, m, n, k, out}, false);
  if (is_new) {
    answer->second = multiplies_codes_({.a = a, .b = b, .m = m, .n = n, .k = k, .out = out});
  }
  return answer->second;
}

}  // namespace qstep::trainer
