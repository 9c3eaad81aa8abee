#include "ops/gemm/gemm_plans.h"

#include <algorithm>
#include <memory>

#include "ops/gemm/gemm_kernels.h"
#include "ops/gemm/gemm_scratch.h"

namespace qstep::ops::cuda {

namespace {

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

LtDescriptor<cublasLtMatrixLayout_t> make_layout(const ColumnMajor& x, cudaDataType_t type) {
  const CublasLt& lt = cublas_lt();
  cublasLtMatrixLayout_t layout = nullptr;
  lt.check(lt.layout_create(&layout, type, static_cast<uint64_t>(x.rows),
                            static_cast<uint64_t>(x.cols), x.ld),
           "cublasLtMatrixLayoutCreate");
  return {layout, lt.layout_destroy};
}

using Product = LtDescriptor<cublasLtMatmulDesc_t>;

template <class T>
void set(const Product& product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  const CublasLt& lt = cublas_lt();
  lt.check(lt.desc_set(product.get(), attribute, &value, sizeof value),
           "cublasLtMatmulDescSetAttribute");
}

void set_pointers(const Product& product, const GemmCall& call) {
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
  if (lt.version() < kScaleModesSince) return false;
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

struct DestroyEvent {
  void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
};
using TimedEvent = std::unique_ptr<CUevent_st, DestroyEvent>;
TimedEvent make_event() {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreate(&event), "cudaEventCreate");
  return TimedEvent(event);
}

// Empty where the GPU has no room.
Buffer try_allocate(int64_t bytes) {
  try {
    return allocate_device(bytes);
  } catch (const Error& e) {
    if (e.code() != ExitCode::kOutOfMemory) throw;
    return {};
  }
}

}  // namespace

GemmPlans::GemmPlans(CudaContext& context)
    : context_(context), workspace_(allocate_device(kGemmWorkspaceBytes)) {
  const CublasLt& lt = cublas_lt();
  lt.check(lt.create(&handle_), "cublasLtCreate");
}

GemmPlans::~GemmPlans() { (void)cublas_lt().destroy(handle_); }

bool GemmPlans::run(const GemmPlanKey& key, const GemmCall& call) {
  auto found = plans_.find(key);
  if (found == plans_.end()) found = plans_.emplace(key, make(key, call)).first;
  const std::optional<Plan>& plan = found->second;
  if (plan) cublas_lt().check(run(*plan, plan->algorithm, call), "cublasLtMatmul");
  return plan.has_value();
}

cublasStatus_t GemmPlans::run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                              const GemmCall& call) {
  const CublasLt& lt = cublas_lt();
  set_pointers(plan.product, call);
  return lt.matmul(handle_, plan.product.get(), call.alpha, call.left, plan.left.get(), call.right,
                   plan.right.get(), call.beta, call.out, plan.out.get(), call.out, plan.out.get(),
                   &algorithm, workspace_.data(), static_cast<size_t>(workspace_.bytes()),
                   context_.stream());
}

bool GemmPlans::proposes(const GemmPlanKey& key) {
  // Pointers of the kind that a call would have; nothing is read.
  const void* const some = workspace_.data();
  const GemmCall call{.left = some,
                      .right = some,
                      .left_scales = some,
                      .right_scales = some,
                      .alpha = some,
                      .beta = some,
                      .bias = nullptr,
                      .out = workspace_.data()};
  const std::optional<Plan> plan = describe(key, call);
  return plan && !proposals(*plan, key).empty();
}

// The plan but for its algorithm.
std::optional<GemmPlans::Plan> GemmPlans::describe(const GemmPlanKey& key, const GemmCall& call) {
  Plan plan{.product = make_product(key),
            .left = make_layout(key.left, data_type(key.left_element)),
            .right = make_layout(key.right, data_type(key.right_element)),
            .out = make_layout(key.out, data_type(key.out_type)),
            .algorithm = {}};
  if (key.of_codes() && !set_scale_modes(plan.product, key)) return std::nullopt;
  set_pointers(plan.product, call);
  return plan;
}

GemmPlans::Proposals GemmPlans::proposals(const Plan& plan, const GemmPlanKey& key) {
  const CublasLt& lt = cublas_lt();
  cublasLtMatmulPreference_t made = nullptr;
  lt.check(lt.preference_create(&made), "cublasLtMatmulPreferenceCreate");
  const LtDescriptor<cublasLtMatmulPreference_t> preference(made, lt.preference_destroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    lt.check(lt.preference_set(preference.get(), attribute, &value, sizeof value),
             "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kGemmWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.left_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.right_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.out_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.out_alignment);

  Proposals candidates(kCandidates);
  int n_found = 0;
  const cublasStatus_t status =
      lt.heuristic(handle_, plan.product.get(), plan.left.get(), plan.right.get(), plan.out.get(),
                   plan.out.get(), preference.get(), kCandidates, candidates.data(), &n_found);
  if (is_refusal(status)) return {};
  lt.check(status, "cublasLtMatmulAlgoGetHeuristic");
  candidates.resize(std::min(candidates.size(), static_cast<size_t>(n_found)));
  std::erase_if(candidates, [](const auto& c) { return c.state != CUBLAS_STATUS_SUCCESS; });
  return candidates;
}

std::optional<GemmPlans::Plan> GemmPlans::make(const GemmPlanKey& key, const GemmCall& call) {
  std::optional<Plan> plan = describe(key, call);
  if (!plan) return plan;
  const Proposals candidates = proposals(*plan, key);
  if (candidates.empty()) return std::nullopt;
  plan->algorithm = candidates.front().algo;
  if (candidates.size() > 1) choose(*plan, candidates, key, call);
  return plan;
}

// Runs every candidate from the same d, which is left as it was.
void GemmPlans::choose(Plan& plan, const Proposals& candidates, const GemmPlanKey& key,
                       GemmCall call) {
  const CublasLt& lt = cublas_lt();
  const int64_t elements = (key.out.cols - 1) * key.out.ld + key.out.rows;
  const int64_t bytes = elements * size_bytes(key.out_type);
  const int64_t stride = (bytes + 255) / 256 * 256;
  // Not the context's scratch, which may hold what this product reads.
  const Buffer memory = try_allocate(2 * stride + 256);
  if (memory.data() == nullptr) return;
  auto* const outputs = static_cast<char*>(memory.data());
  auto* const different = reinterpret_cast<int32_t*>(outputs + 2 * stride);
  const cudaStream_t stream = context_.stream();
  const void* const d = call.out;
  const TimedEvent begin = make_event(), end = make_event();
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
      find_difference(different, outputs, call.out, stride / 4, context_);
      cuda_check(cudaMemcpyAsync(&found, different, sizeof found, cudaMemcpyDeviceToHost, stream),
                 "cudaMemcpy");
    }
    // The result no longer matters, and the first run has loaded the kernel.
    call.out = outputs + stride;
    cuda_check(cudaEventRecord(begin.get(), stream), "cudaEventRecord");
    for (int turn = 0; turn < kTimedRuns; ++turn) {
      lt.check(run(plan, candidates[i].algo, call), "cublasLtMatmul");
    }
    cuda_check(cudaEventRecord(end.get(), stream), "cudaEventRecord");
    cuda_check(cudaEventSynchronize(end.get()), "cudaEventSynchronize");
    float ms = 0;
    cuda_check(cudaEventElapsedTime(&ms, begin.get(), end.get()), "cudaEventElapsedTime");
    if (found == 0 && (i == 0 || ms < best_ms)) {
      best_ms = ms;
      plan.algorithm = candidates[i].algo;
    }
  }
}

}  // namespace qstep::ops::cuda
