#include "ops/gemm/gemm_cuda.h"

#include <algorithm>

#include "ops/gemm/gemm_kernels.h"
#include "ops/gemm/gemm_plans.h"
#include "ops/gemm/gemm_scratch.h"
#include "ops/gemm/gemm_tiled.h"

namespace qstep::ops::cuda {

namespace {

std::string describe(const GemmPlanKey& key) {
  return fmt::format("[{},{}] = [{},{}] [{},{}]^T of {} and {}", key.out.cols, key.out.rows,
                     key.out.cols, key.right.transposed ? key.right.cols : key.right.rows,
                     key.out.rows, key.left.transposed ? key.left.rows : key.left.cols,
                     name(key.right_element), name(key.left_element));
}

device::TileFactors tile_factors(const Operand& x, int64_t k) {
  if (!tiled(x)) return {};
  return {.scales = x.tile_scales,
          .tile_rows = x.tile_rows,
          .per_row = (x.k + x.tile_k - 1) / x.tile_k,
          .column = k / x.tile_k};
}

}  // namespace

struct Gemm::Products {
  explicit Products(CudaContext& its_context)
      : context(its_context),
        plans(its_context),
        factors(allocate_device(2 * static_cast<int64_t>(sizeof(float)))) {}

  void multiply(const Tensor& d, const Operand& a, const Operand& b, float alpha, bool accumulate,
                const Tensor& bias);
  // False where the library has no kernel for these codes and this d.
  bool multiply_codes(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      bool accumulate, const Tensor& bias);
  void multiply_tiles(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      bool accumulate, const Tensor& bias);
  const float* factors_of(const float* a_scale, float a_denominator, const float* b_scale,
                          float b_denominator, float alpha, bool accumulate);

  CudaContext& context;
  GemmPlans plans;
  Buffer factors;
};

// {factor, beta} in device memory.
const float* Gemm::Products::factors_of(const float* a_scale, float a_denominator,
                                        const float* b_scale, float b_denominator, float alpha,
                                        bool accumulate) {
  auto* const out = static_cast<float*>(factors.data());
  gemm_factors({.factors = out,
                .a_scale = a_scale,
                .b_scale = b_scale,
                .a_denominator = a_scale != nullptr ? a_denominator : 1.0f,
                .b_denominator = b_scale != nullptr ? b_denominator : 1.0f,
                .alpha = alpha,
                .beta = accumulate ? 1.0f : 0.0f},
               context);
  return out;
}

void Gemm::Products::multiply(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                              bool accumulate, const Tensor& bias) {
  const bool on_device = a.scale != nullptr || b.scale != nullptr;
  const GemmPlanKey key =
      gemm_plan_key(d, a, b, accumulate, bias, on_device ? GemmFactor::kDevice : GemmFactor::kHost);
  const float beta = accumulate ? 1.0f : 0.0f;
  const float* const of_device = on_device ? factors_of(a.scale, a.scale_denominator, b.scale,
                                                        b.scale_denominator, alpha, accumulate)
                                           : nullptr;
  const GemmCall call{.left = b.data,
                      .right = a.data,
                      .left_scales = nullptr,
                      .right_scales = nullptr,
                      .alpha = on_device ? of_device : &alpha,
                      .beta = on_device ? of_device + 1 : &beta,
                      .bias = key.bias == GemmBias::kInProduct ? bias.data : nullptr,
                      .out = d.data};
  if (!plans.run(key, call)) {
    throw Error(ExitCode::kGpu, "cuBLASLt has no kernel for a product " + describe(key));
  }
}

bool Gemm::Products::multiply_codes(const Tensor& d, const Operand& a, const Operand& b,
                                    float alpha, bool accumulate, const Tensor& bias) {
  if (!documented({.a = a.form, .b = b.form, .m = a.rows, .n = b.rows, .k = a.k, .out = d.dtype})) {
    return false;
  }
  // What alpha has to hold.
  const float* const a_scale = library_has_scale(a) ? nullptr : a.scale;
  const float* const b_scale = library_has_scale(b) ? nullptr : b.scale;
  const bool on_device = a_scale != nullptr || b_scale != nullptr;
  const GemmPlanKey key =
      code_plan_key(d, a, b, accumulate, bias, on_device ? GemmFactor::kDevice : GemmFactor::kHost);
  if (bias && key.bias == GemmBias::kNo) return false;
  const float beta = accumulate ? 1.0f : 0.0f;
  const float* const of_device = on_device ? factors_of(a_scale, a.scale_denominator, b_scale,
                                                        b.scale_denominator, alpha, accumulate)
                                           : nullptr;
  const GemmCall call{.left = b.codes,
                      .right = a.codes,
                      .left_scales = scales_of(b),
                      .right_scales = scales_of(a),
                      .alpha = on_device ? of_device : &alpha,
                      .beta = on_device ? of_device + 1 : &beta,
                      .bias = bias.data,
                      .out = d.data};
  return plans.run(key, call);
}

void Gemm::Products::multiply_tiles(const Tensor& d, const Operand& a, const Operand& b,
                                    float alpha, bool accumulate, const Tensor& bias) {
  check_tiles(a, b);
  const int64_t n = d.cols, tile = std::min(tile_k(a), tile_k(b));
  float* const y = context.scratch<float>(tiled_product_floats(d.size()));
  float* const p = y + d.size();
  const Tensor partial = matrix(p, Dtype::kF32, d.rows, n);
  for (int64_t k = 0; k < a.k; k += tile) {
    const int64_t length = std::min(tile, a.k - k);
    multiply(partial, k_range(a, k, length), k_range(b, k, length), 1.0f, false, {});
    add_tile_product(
        {.y = y, .p = p, .n = n, .a = tile_factors(a, k), .b = tile_factors(b, k), .first = k == 0},
        d.size(), context);
  }
  const float* const factor =
      factors_of(a.scale, a.scale_denominator, b.scale, b.scale_denominator, alpha, accumulate);
  finish_product(d, y, factor, bias, accumulate, context);
}

Gemm::Gemm(CudaContext& context) : products_(std::make_unique<Products>(context)) {}
Gemm::~Gemm() = default;

void Gemm::operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      Accumulate accumulate, const Tensor& bias) {
  check_gemm(d, a, b, bias);
  if (d.size() == 0) return;
  const bool adds = accumulate == Accumulate::kYes;
  if (a.codes != nullptr && b.codes != nullptr) {
    if (products_->multiply_codes(d, a, b, alpha, adds, bias)) return;
    // Where the library cannot write or add the rest: the product first, FP32, then the rest.
    float* const y = products_->context.scratch<float>(d.size());
    if (products_->multiply_codes(matrix(y, Dtype::kF32, d.rows, d.cols), a, b, alpha, false, {})) {
      return finish_product(d, y, nullptr, bias, adds, products_->context);
    }
  }
  check(a.data != nullptr && b.data != nullptr,
        "gemm: the library has no kernel for these codes, and there are no values");
  if (tiled(a) || tiled(b)) return products_->multiply_tiles(d, a, b, alpha, adds, bias);
  if (bias && bias.dtype != d.dtype) {
    // The library has no bias of another type than d's: the product first, FP32, then the rest.
    float* const y = products_->context.scratch<float>(d.size());
    products_->multiply(matrix(y, Dtype::kF32, d.rows, d.cols), a, b, alpha, false, {});
    return finish_product(d, y, nullptr, bias, adds, products_->context);
  }
  products_->multiply(d, a, b, alpha, adds, bias);
}

bool Gemm::multiplies_codes(const CodeProduct& product) {
  if (!documented(product)) return false;
  const bool outer = product.a.scales == ScaleMode::kVec16;  // nvfp4: the tensors' factors in alpha
  return products_->plans.proposes(
      code_plan_key(product, product.n, outer ? GemmFactor::kDevice : GemmFactor::kHost));
}

}  // namespace qstep::ops::cuda
