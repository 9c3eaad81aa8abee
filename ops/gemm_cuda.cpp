#include "ops/gemm_cuda.h"

#include <algorithm>
#include <map>
#include <optional>
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
constexpr size_t kScaleModesSince = 120800;  // version of the library that has them

cudaDataType_t data_type(GemmElement element) {
  switch (element) {
    case GemmElement::kF32:
      return CUDA_R_32F;
    case GemmElement::kBf16:
      return CUDA_R_16BF;
    case GemmElement::kE4m3:
      return CUDA_R_8F_E4M3;
    case GemmElement::kE5m2:
      return CUDA_R_8F_E5M2;
    case GemmElement::kE2m1:
      return CUDA_R_4F_E2M1;
  }
  return CUDA_R_32F;
}
cudaDataType_t data_type(Dtype dtype) { return data_type(gemm_element(dtype)); }

// Of cublasLtMatmulMatrixScale_t, by number: headers before CUDA 12.9 lack the last three, and
// libraries before it refuse them.
constexpr int32_t scale_mode(ScaleMode mode) {
  switch (mode) {
    case ScaleMode::kVec16:
      return CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
    case ScaleMode::kVec32:
      return CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
    case ScaleMode::kRow:
      return 3;  // OUTER_VEC_32F
    case ScaleMode::kVec128:
      return 4;  // VEC128_32F
    case ScaleMode::kBlock128:
      return 5;  // BLK128x128_32F
    case ScaleMode::kTensor:
    case ScaleMode::kNone:
      break;
  }
  return CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
}
#if CUBLAS_VERSION >= 120900
static_assert(scale_mode(ScaleMode::kRow) == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F &&
              scale_mode(ScaleMode::kVec128) == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F &&
              scale_mode(ScaleMode::kBlock128) == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F);
#endif

// What a library answers to a product that it, or the GPU, does not have: an older one knows fewer
// attributes and scale modes.
bool is_refusal(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
         status == CUBLAS_STATUS_ARCH_MISMATCH;
}

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

Layout make_layout(const ColumnMajor& x, cudaDataType_t type) {
  const CublasLt& lt = cublas_lt();
  cublasLtMatrixLayout_t layout = nullptr;
  lt.check(lt.layout_create(&layout, type, static_cast<uint64_t>(x.rows),
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

struct Plan {
  Product product;
  Layout left, right, out;
  cublasLtMatmulAlgo_t algorithm;
};

// What one call hands to a plan.
struct Call {
  const void *left, *right;
  const void *left_scales, *right_scales;  // of codes; null: 1
  const void *alpha, *beta, *bias;
  void* out;
};

void set_pointers(const Product& product, const Call& call) {
  if (call.bias != nullptr) set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
  if (call.left_scales != nullptr) {
    set(product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, call.left_scales);
  }
  if (call.right_scales != nullptr) {
    set(product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, call.right_scales);
  }
}

// False where the library does not know what the key asks for.
bool set_scale_modes(const Product& product, const GemmPlanKey& key) {
  const CublasLt& lt = cublas_lt();
  for (const auto& [attribute, scales] :
       {std::pair{CUBLASLT_MATMUL_DESC_A_SCALE_MODE, key.left_scales},
        {CUBLASLT_MATMUL_DESC_B_SCALE_MODE, key.right_scales}}) {
    const int32_t mode = scale_mode(scales);
    const cublasStatus_t status = lt.desc_set(product.get(), attribute, &mode, sizeof mode);
    if (is_refusal(status)) return false;
    lt.check(status, "cublasLtMatmulDescSetAttribute");
  }
  set(product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{0});
  return true;
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
    set(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(key.bias_type));
  }
  return product;
}

std::string describe(const GemmPlanKey& key) {
  return fmt::format("[{},{}] = [{},{}] [{},{}]^T of {} and {}", key.out.cols, key.out.rows,
                     key.out.cols, key.right.transposed ? key.right.cols : key.right.rows,
                     key.out.rows, key.left.transposed ? key.left.rows : key.left.cols,
                     name(key.right_element), name(key.left_element));
}

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

  // Of a product that the library has no kernel for: null.
  const Plan* plan(const GemmPlanKey& key, const Call& call);
  std::optional<Plan> make(const GemmPlanKey& key, const Call& call);
  std::vector<cublasLtMatmulHeuristicResult_t> proposals(const Plan& plan, const GemmPlanKey& key);
  std::optional<Plan> describe_plan(const GemmPlanKey& key, const Call& call);
  void choose(Plan& plan, const std::vector<cublasLtMatmulHeuristicResult_t>& candidates,
              const GemmPlanKey& key, Call call);
  cublasStatus_t run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const Call& call);

  void multiply(const Tensor& d, const Operand& a, const Operand& b, float alpha, bool accumulate,
                const Tensor& bias);
  // False where the library has no kernel for these codes and this d.
  bool multiply_codes(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      bool accumulate, const Tensor& bias);
  bool proposes(const CodeProduct& product);
  void multiply_tiles(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      bool accumulate, const Tensor& bias);
  const float* factors_of(const float* a_scale, float a_denominator, const float* b_scale,
                          float b_denominator, float alpha, bool accumulate);

  CudaContext& context;
  Buffer workspace, factors;
  cublasLtHandle_t handle = nullptr;
  std::map<GemmPlanKey, std::optional<Plan>> plans;
};

cublasStatus_t Gemm::Plans::run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                                const Call& call) {
  const CublasLt& lt = cublas_lt();
  set_pointers(plan.product, call);
  return lt.matmul(handle, plan.product.get(), call.alpha, call.left, plan.left.get(), call.right,
                   plan.right.get(), call.beta, call.out, plan.out.get(), call.out, plan.out.get(),
                   &algorithm, workspace.data(), static_cast<size_t>(workspace.bytes()),
                   context.stream());
}

// The plan but for its algorithm.
std::optional<Plan> Gemm::Plans::describe_plan(const GemmPlanKey& key, const Call& call) {
  Plan plan{.product = make_product(key),
            .left = make_layout(key.left, data_type(key.left_element)),
            .right = make_layout(key.right, data_type(key.right_element)),
            .out = make_layout(key.out, data_type(key.out_type)),
            .algorithm = {}};
  if (key.of_codes() && !set_scale_modes(plan.product, key)) return std::nullopt;
  set_pointers(plan.product, call);
  return plan;
}

std::vector<cublasLtMatmulHeuristicResult_t> Gemm::Plans::proposals(const Plan& plan,
                                                                    const GemmPlanKey& key) {
  const CublasLt& lt = cublas_lt();
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
  const cublasStatus_t status =
      lt.heuristic(handle, plan.product.get(), plan.left.get(), plan.right.get(), plan.out.get(),
                   plan.out.get(), preference.get(), kCandidates, candidates.data(), &n_found);
  if (is_refusal(status)) return {};
  lt.check(status, "cublasLtMatmulAlgoGetHeuristic");
  candidates.resize(std::min(candidates.size(), static_cast<size_t>(n_found)));
  std::erase_if(candidates, [](const auto& c) { return c.state != CUBLAS_STATUS_SUCCESS; });
  return candidates;
}

std::optional<Plan> Gemm::Plans::make(const GemmPlanKey& key, const Call& call) {
  std::optional<Plan> plan = describe_plan(key, call);
  if (!plan) return plan;
  const auto candidates = proposals(*plan, key);
  if (candidates.empty()) return std::nullopt;
  choose(*plan, candidates, key, call);
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

const Plan* Gemm::Plans::plan(const GemmPlanKey& key, const Call& call) {
  auto found = plans.find(key);
  if (found == plans.end()) found = plans.emplace(key, make(key, call)).first;
  return found->second ? &*found->second : nullptr;
}

device::TileFactors tile_factors(const Operand& x, int64_t k) {
  if (!tiled(x)) return {};
  return {.scales = x.tile_scales,
          .tile_rows = x.tile_rows,
          .per_row = (x.k + x.tile_k - 1) / x.tile_k,
          .column = k / x.tile_k};
}

// {factor, beta} in device memory.
const float* Gemm::Plans::factors_of(const float* a_scale, float a_denominator,
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

void Gemm::Plans::multiply(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                           bool accumulate, const Tensor& bias) {
  const bool on_device = a.scale != nullptr || b.scale != nullptr;
  const GemmPlanKey key =
      gemm_plan_key(d, a, b, accumulate, bias, on_device ? GemmFactor::kDevice : GemmFactor::kHost);
  const float beta = accumulate ? 1.0f : 0.0f;
  const float* const of_device = on_device ? factors_of(a.scale, a.scale_denominator, b.scale,
                                                        b.scale_denominator, alpha, accumulate)
                                           : nullptr;
  const Call call{.left = b.data,
                  .right = a.data,
                  .left_scales = nullptr,
                  .right_scales = nullptr,
                  .alpha = on_device ? of_device : &alpha,
                  .beta = on_device ? of_device + 1 : &beta,
                  .bias = key.bias == GemmBias::kInProduct ? bias.data : nullptr,
                  .out = d.data};
  const Plan* const its_plan = plan(key, call);
  if (its_plan == nullptr) {
    throw Error(ExitCode::kGpu, "cuBLASLt has no kernel for a product " + describe(key));
  }
  cublas_lt().check(run(*its_plan, its_plan->algorithm, call), "cublasLtMatmul");
}

bool Gemm::Plans::multiply_codes(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                                 bool accumulate, const Tensor& bias) {
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
  const Call call{.left = b.codes,
                  .right = a.codes,
                  .left_scales = scales_of(b),
                  .right_scales = scales_of(a),
                  .alpha = on_device ? of_device : &alpha,
                  .beta = on_device ? of_device + 1 : &beta,
                  .bias = bias.data,
                  .out = d.data};
  const Plan* const its_plan = plan(key, call);
  if (its_plan == nullptr) return false;
  cublas_lt().check(run(*its_plan, its_plan->algorithm, call), "cublasLtMatmul");
  return true;
}

bool Gemm::Plans::proposes(const CodeProduct& product) {
  if (!documented(product) || cublas_lt().version() < kScaleModesSince) return false;
  // Pointers of the kind that a call would have; nothing is read.
  const void* const some = workspace.data();
  const Call call{.left = some,
                  .right = some,
                  .left_scales = some,
                  .right_scales = some,
                  .alpha = some,
                  .beta = some,
                  .bias = nullptr,
                  .out = workspace.data()};
  const bool outer = product.a.scales == ScaleMode::kVec16;  // nvfp4: the tensors' factors in alpha
  const GemmPlanKey key =
      code_plan_key(product, product.n, outer ? GemmFactor::kDevice : GemmFactor::kHost);
  const std::optional<Plan> plan = describe_plan(key, call);
  return plan && !proposals(*plan, key).empty();
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
  const float* const factor =
      factors_of(a.scale, a.scale_denominator, b.scale, b.scale_denominator, alpha, accumulate);
  finish_product(d, y, factor, bias, accumulate, context);
}

Gemm::Gemm(CudaContext& context) : plans_(std::make_unique<Plans>(context)) {}
Gemm::~Gemm() = default;

void Gemm::operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      Accumulate accumulate, const Tensor& bias) {
  check_gemm(d, a, b, bias);
  if (d.size() == 0) return;
  const bool adds = accumulate == Accumulate::kYes;
  if (a.codes != nullptr && b.codes != nullptr) {
    if (plans_->multiply_codes(d, a, b, alpha, adds, bias)) return;
    // Where the library cannot write or add the rest: the product first, FP32, then the rest.
    float* const y = plans_->context.scratch<float>(d.size());
    if (plans_->multiply_codes(matrix(y, Dtype::kF32, d.rows, d.cols), a, b, alpha, false, {})) {
      return finish_product(d, y, nullptr, bias, adds, plans_->context);
    }
  }
  check(a.data != nullptr && b.data != nullptr,
        "gemm: the library has no kernel for these codes, and there are no values");
  if (tiled(a) || tiled(b)) return plans_->multiply_tiles(d, a, b, alpha, adds, bias);
  if (bias && bias.dtype != d.dtype) {
    // The library has no bias of another type than d's: the product first, FP32, then the rest.
    float* const y = plans_->context.scratch<float>(d.size());
    plans_->multiply(matrix(y, Dtype::kF32, d.rows, d.cols), a, b, alpha, false, {});
    return finish_product(d, y, nullptr, bias, adds, plans_->context);
  }
  plans_->multiply(d, a, b, alpha, adds, bias);
}

bool Gemm::multiplies_codes(const CodeProduct& product) { return plans_->proposes(product); }

}  // namespace qstep::ops::cuda
