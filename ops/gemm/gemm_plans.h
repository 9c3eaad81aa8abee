// The kernels of cuBLASLt for products, FP32 accumulation (no TF32): one plan per GemmPlanKey, made
// at first use and kept. Of the kernels that the library proposes the fastest is taken among those
// that give the bits of its first proposal, timed once on the operands of the first call: what is
// computed does not depend on the timing. Where the GPU has no room for two more results, it is the
// first proposal.
#pragma once

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/cuda_context.h"
#include "ops/gemm/gemm_plan_key.h"

namespace qstep::ops::cuda {

// A descriptor of the library, destroyed with its owner.
template <class T>
class LtDescriptor {
 public:
  using Destroy = cublasStatus_t (*)(T);
  LtDescriptor(T value, Destroy destroy) : value_(value), destroy_(destroy) {}
  LtDescriptor(LtDescriptor&& other) noexcept
      : value_(std::exchange(other.value_, nullptr)), destroy_(other.destroy_) {}
  LtDescriptor& operator=(LtDescriptor&&) = delete;
  ~LtDescriptor() {
    if (value_ != nullptr) (void)destroy_(value_);
  }
  T get() const { return value_; }

 private:
  T value_;
  Destroy destroy_;
};

// What one call hands to a plan: addresses in device memory, but for alpha and beta where the key
// has them on the host.
struct GemmCall {
  const void *left, *right;
  const void *left_scales, *right_scales;  // of codes; null: 1
  const void *alpha, *beta, *bias;
  void* out;
};

class GemmPlans {
 public:
  explicit GemmPlans(CudaContext& context);  // outlives this
  ~GemmPlans();
  GemmPlans(const GemmPlans&) = delete;
  GemmPlans& operator=(const GemmPlans&) = delete;

  // Of a product that the library has no kernel for: false.
  bool run(const GemmPlanKey& key, const GemmCall& call);
  // Whether it proposes a kernel for such products of codes, on this GPU. Runs nothing.
  bool proposes(const GemmPlanKey& key);

 private:
  using Product = LtDescriptor<cublasLtMatmulDesc_t>;
  using Layout = LtDescriptor<cublasLtMatrixLayout_t>;
  using Proposals = std::vector<cublasLtMatmulHeuristicResult_t>;
  struct Plan {
    Product product;
    Layout left, right, out;
    cublasLtMatmulAlgo_t algorithm;
  };

  std::optional<Plan> describe(const GemmPlanKey& key, const GemmCall& call);
  Proposals proposals(const Plan& plan, const GemmPlanKey& key);
  std::optional<Plan> make(const GemmPlanKey& key, const GemmCall& call);
  void choose(Plan& plan, const Proposals& candidates, const GemmPlanKey& key, GemmCall call);
  cublasStatus_t run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const GemmCall& call);

  CudaContext& context_;
  Buffer workspace_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<GemmPlanKey, std::optional<Plan>> plans_;
};

}  // namespace qstep::ops::cuda
