#include "ops/gemm_cuda.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "ops/cublas_lt.h"
#include "ops/gemm_kernels.h"
#include "ops/gemm_plan_key.h"
#include "ops/gemm_tiled.h"

namespace qstep::ops::cuda {

namespace {

constexpr int64_t kWorkspaceBytes = 32 << 20;  // what NVIDIA's samples give Hopper's kernels
constexpr int kCandidates = 8;
constexpr int kTimedRuns = 5;

cudaDataType_t data_type(Dtype dtype) { return dtype == Dtype::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// Descriptors of the library, destroyed with their owner.
template <class T>
class Described {
 public:
  using Destroy = cublasStatus_t (*)(T);
  Described(T value, Destroy destroy) : value_(value), destroy_(destroy) {}
  Described(Described&& other) noexcept
      : value_(std::exchange(other.value_, nullptr)), destroy_(other.destroy_) {}
  Described& operator=(Described&&) = delete;
  ~Described() {
    if (value_ != nullptr) (void)destroy_(value_);
  }
  T get() const { return value_; }

 private:
  T value_;
  Destroy destroy_;
};
using Layout = Described<cublasLtMatrixLayout_t>;
using Product = Described<cublasLtMatmulDesc_t>;

Layout make_layout(const ColumnMajor& x, Dtype dtype) {
  const CublasLt& lt = cublas_lt();
  cublasLtMatrixLayout_t layout = nullptr;
  lt.check(lt.layout_create(&layout, data_type(dtype), static_cast<uint64_t>(x.rows),
                            static_cast<uint64_t>(x.cols), x.ld),
           "cublasLtMatrixLayoutCreate");
  return {layout, lt.layout_destroy};
}

template <class T>
void set(const Product& product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  const CublasLt& lt = cublas_lt();
  lt.check(lt.desc_set(product.get(), attribute, &value, sizeof value),
           "cublasLtMatmulDescSetAttribute");
}

Product make_product(const GemmPlanKey& key) {
  const CublasLt& lt = cublas_lt();
  cublasLtMatmulDesc_t desc = nullptr;
  lt.check(lt.desc_create(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  Product product(desc, lt.desc_destroy);
  const auto transpose = [](const ColumnMajor& x) {
    return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  set(product, CUBLASLT_MATMUL_DESC_TRANSA, transpose(key.left));
  set(product, CUBLASLT_MATMUL_DESC_TRANSB, transpose(key.right));
  if (key.factor == GemmFactor::kDevice) {
    set(product, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
  }
  if (key.bias == GemmBias::kInProduct) {
    set(product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(key.out_type));
  }
  return product;
}

struct Plan {
  Product product;
  Layout left, right, out;
  cublasLtMatmulAlgo_t algorithm;
};

// What one call hands to a plan.
struct Call {
  const void *left, *right, *alpha, *beta, *bias;
  void* out;
};

}  // namespace

struct Gemm::Plans {
  explicit Plans(CudaContext& its_context)
      : context(its_context),
        workspace(allocate_device(kWorkspaceBytes)),
        factors(allocate_device(2 * static_cast<int64_t>(sizeof(float)))) {
    const CublasLt& lt = cublas_lt();
    lt.check(lt.create(&handle), "cublasLtCreate");
  }
  ~Plans() { (void)cublas_lt().destroy(handle); }

  Plan& plan(const GemmPlanKey& key, const Call& call);
  Plan make(const GemmPlanKey& key, const Call& call);
  void choose(Plan& plan, const std::vector<cublasLtMatmulHeuristicResult_t>& candidates,
              const GemmPlanKey& key, Call call);
  cublasStatus_t run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const Call& call);

  void multiply(const Tensor& d, const Operand& a, const Operand& b, float alpha, bool accumulate,
                const Tensor& bias);
  void multiply_tiles(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      bool accumulate, const Tensor& bias);
  const float* factors_of(const Operand& a, const Operand& b, float alpha, bool accumulate);

  CudaContext& context;
  Buffer workspace, factors;
  cublasLtHandle_t handle = nullptr;
  std::map<GemmPlanKey, Plan> plans;
};

cublasStatus_t Gemm::Plans::run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                                const Call& call) {
  const CublasLt& lt = cublas_lt();
  if (call.bias != nullptr) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
  return lt.matmul(handle, plan.product.get(), call.alpha, call.left, plan.left.get(), call.right,
                   plan.right.get(), call.beta, call.out, plan.out.get(), call.out, plan.out.get(),
                   &algorithm, workspace.data(), static_cast<size_t>(workspace.bytes()),
                   context.stream());
}

Plan Gemm::Plans::make(const GemmPlanKey& key, const Call& call) {
  const CublasLt& lt = cublas_lt();
  Plan plan{.product = make_product(key),
            .left = make_layout(key.left, key.in),
            .right = make_layout(key.right, key.in),
            .out = make_layout(key.out, key.out_type),
            .algorithm = {}};
  if (call.bias != nullptr) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);

  cublasLtMatmulPreference_t made = nullptr;
  lt.check(lt.preference_create(&made), "cublasLtMatmulPreferenceCreate");
  const Described<cublasLtMatmulPreference_t> preference(made, lt.preference_destroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    lt.check(lt.preference_set(preference.get(), attribute, &value, sizeof value),
             "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.left_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.right_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.out_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.out_alignment);

  std::vector<cublasLtMatmulHeuristicResult_t> candidates(kCandidates);
  int n_found = 0;
  lt.check(
      lt.heuristic(handle, plan.product.get(), plan.left.get(), plan.right.get(), plan.out.get(),
                   plan.out.get(), preference.get(), kCandidates, candidates.data(), &n_found),
      "cublasLtMatmulAlgoGetHeuristic");
  std::erase_if(candidates, [](const auto& c) { return c.state != CUBLAS_STATUS_SUCCESS; });
  candidates.resize(std::min(candidates.size(), static_cast<size_t>(n_found)));
  if (candidates.empty()) {
    throw Error(ExitCode::kGpu,
                fmt::format("cuBLASLt has no kernel for a product [{},{}] = [{},{}] [{},{}] of {}",
                            key.out.cols, key.out.rows, key.out.cols,
                            key.right.transposed ? key.right.cols : key.right.rows, key.out.rows,
                            key.left.transposed ? key.left.rows : key.left.cols, name(key.in)));
  }
  choose(plan, candidates, key, call);
  return plan;
}

// Runs every candidate from the same d, which is left as it was.
void Gemm::Plans::choose(Plan& plan, const std::vector<cublasLtMatmulHeuristicResult_t>& candidates,
                         const GemmPlanKey& key, Call call) {
  const CublasLt& lt = cublas_lt();
  plan.algorithm = candidates.front().algo;
  if (candidates.size() == 1) return;
  const int64_t elements = (key.out.cols - 1) * key.out.ld + key.out.rows;
  const int64_t bytes = elements * size_bytes(key.out_type);
  const int64_t stride = (bytes + 255) / 256 * 256;
  // Not the context's scratch, which may hold what this product reads.
  const Buffer memory = allocate_device(2 * stride + 256);
  auto* const outputs = static_cast<char*>(memory.data());
  auto* const different = reinterpret_cast<int32_t*>(outputs + 2 * stride);
  const cudaStream_t stream = context.stream();
  const void* const d = call.out;

  cudaEvent_t begin = nullptr, end = nullptr;
  cuda_check(cudaEventCreate(&begin), "cudaEventCreate");
  cuda_check(cudaEventCreate(&end), "cudaEventCreate");
  float best_ms = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    call.out = outputs + (i == 0 ? 0 : stride);
    // Whole words are compared: the rest of the last one is zero on both sides.
    cuda_check(cudaMemsetAsync(call.out, 0, static_cast<size_t>(stride), stream), "cudaMemset");
    cuda_check(
        cudaMemcpyAsync(call.out, d, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream),
        "cudaMemcpy");
    const cublasStatus_t status = run(plan, candidates[i].algo, call);
    if (i == 0) lt.check(status, "cublasLtMatmul");
    if (status != CUBLAS_STATUS_SUCCESS) continue;
    int32_t found = 0;  // a difference from the first candidate's result
    if (i > 0) {
      find_difference(different, outputs, call.out, stride / 4, context);
      cuda_check(cudaMemcpyAsync(&found, different, sizeof found, cudaMemcpyDeviceToHost, stream),
                 "cudaMemcpy");
    }
    // The result no longer matters, and the first run has loaded the kernel.
    call.out = outputs + stride;
    cuda_check(cudaEventRecord(begin, stream), "cudaEventRecord");
    for (int turn = 0; turn < kTimedRuns; ++turn) {
      lt.check(run(plan, candidates[i].algo, call), "cublasLtMatmul");
    }
    cuda_check(cudaEventRecord(end, stream), "cudaEventRecord");
    cuda_check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    cuda_check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (found == 0 && (i == 0 || ms < best_ms)) {
      best_ms = ms;
      plan.algorithm = candidates[i].algo;
    }
  }
  cuda_check(cudaEventDestroy(begin), "cudaEventDestroy");
  cuda_check(cudaEventDestroy(end), "cudaEventDestroy");
}

Plan& Gemm::Plans::plan(const GemmPlanKey& key, const Call& call) {
  auto found = plans.find(key);
  if (found == plans.end()) found = plans.emplace(key, make(key, call)).first;
  return found->second;
}

device::TileFactors tile_factors(const Operand& x, int64_t k) {
  if (!tiled(x)) return {};
  return {.scales = x.tile_scales,
          .tile_rows = x.tile_rows,
          .per_row = (x.k + x.tile_k - 1) / x.tile_k,
          .column = k / x.tile_k};
}

// {factor, beta} in device memory.
const float* Gemm::Plans::factors_of(const Operand& a, const Operand& b, float alpha,
                                     bool accumulate) {
  auto* const out = static_cast<float*>(factors.data());
  gemm_factors({.factors = out,
                .a_scale = a.scale,
                .b_scale = b.scale,
                .a_denominator = a.scale != nullptr ? a.scale_denominator : 1.0f,
                .b_denominator = b.scale != nullptr ? b.scale_denominator : 1.0f,
                .alpha = alpha,
                .beta = accumulate ? 1.0f : 0.0f},
               context);
  return out;
}

void Gemm::Plans::multiply(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                           bool accumulate, const Tensor& bias) {
  const bool on_device = a.scale != nullptr || b.scale != nullptr;
  const GemmPlanKey key =
      gemm_plan_key(d, a, b, accumulate, bias, on_device ? GemmFactor::kDevice : GemmFactor::kHost);
  const float beta = accumulate ? 1.0f : 0.0f;
  const float* const of_device = on_device ? factors_of(a, b, alpha, accumulate) : nullptr;
  const Call call{.left = b.data,
                  .right = a.data,
                  .alpha = on_device ? of_device : &alpha,
                  .beta = on_device ? of_device + 1 : &beta,
                  .bias = key.bias == GemmBias::kInProduct ? bias.data : nullptr,
                  .out = d.data};
  const Plan& its_plan = plan(key, call);
  cublas_lt().check(run(its_plan, its_plan.algorithm, call), "cublasLtMatmul");
}

void Gemm::Plans::multiply_tiles(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                                 bool accumulate, const Tensor& bias) {
  check_tiles(a, b);
  const int64_t n = d.cols, tile = std::min(tile_k(a), tile_k(b));
  float* const y = context.scratch<float>(2 * d.size());
  float* const p = y + d.size();
  const Tensor partial = matrix(p, Dtype::kF32, d.rows, n);
  for (int64_t k = 0; k < a.k; k += tile) {
    const int64_t length = std::min(tile, a.k - k);
    multiply(partial, k_range(a, k, length), k_range(b, k, length), 1.0f, false, {});
    add_tile_product(
        {.y = y, .p = p, .n = n, .a = tile_factors(a, k), .b = tile_factors(b, k), .first = k == 0},
        d.size(), context);
  }
  finish_product(d, y, factors_of(a, b, alpha, accumulate), bias, accumulate, context);
}

Gemm::Gemm(CudaContext& context) : plans_(std::make_unique<Plans>(context)) {}
Gemm::~Gemm() = default;

void Gemm::operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      Accumulate accumulate, const Tensor& bias) {
  check_gemm(d, a, b, bias);
  if (d.size() == 0) return;
  const bool adds = accumulate == Accumulate::kYes;
  if (tiled(a) || tiled(b)) return plans_->multiply_tiles(d, a, b, alpha, adds, bias);
  if (bias && bias.dtype != d.dtype) {
    // The library has no bias of another type than d's: the product first, FP32, then the rest.
    float* const y = plans_->context.scratch<float>(d.size());
    plans_->multiply(matrix(y, Dtype::kF32, d.rows, d.cols), a, b, alpha, false, {});
    return finish_product(d, y, nullptr, bias, adds, plans_->context);
  }
  plans_->multiply(d, a, b, alpha, adds, bias);
}

}  // namespace qstep::ops::cuda
