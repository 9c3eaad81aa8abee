#include "ops/attention/attention_cuda.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "ops/attention/attention.h"
#include "ops/attention/attention_graph.h"

namespace qstep::ops::cuda {

namespace {

// Which kernels take the calls of one key.
struct Choice {
  std::optional<CudnnPlan> plan;              // none: the row kernels
  AttentionPlanKey part;                      // what one run of the plan computes
  std::unique_ptr<AttentionNumbers> numbers;  // where the plan reads them
  std::string why;                            // there is no plan
};

}  // namespace

struct Attention::Plans {
  Plans(CudaContext& its_context, int64_t limit) : context(its_context), scratch_limit(limit) {}
  ~Plans() {
    choices.clear();  // plans before the handle that they were made with
    if (handle != nullptr) (void)cudnn().destroy(handle);
  }

  void open();
  Choice choose(const AttentionPlanKey& key);
  Choice& choice(const AttentionPlanKey& key);
  // False where the row kernels are to compute the call.
  bool run(AttentionCall call);

  CudaContext& context;
  int64_t scratch_limit;
  cudnnHandle_t handle = nullptr;
  int capability = 0;
  std::string unavailable;  // why there is no handle, once one has been asked for
  std::map<AttentionPlanKey, Choice> choices;
};

void Attention::Plans::open() {
  if (handle != nullptr || !unavailable.empty()) return;
  int device = 0, major = 0, minor = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cudaDeviceGetAttribute");
  capability = 10 * major + minor;
  try {
    cudnn().check(cudnn().create(&handle), "cudnnCreate");
    cudnn().check(cudnn().set_stream(handle, context.stream()), "cudnnSetStream");
  } catch (const Error& e) {
    if (e.code() != ExitCode::kGpu) throw;
    unavailable = e.what();
  }
}

Choice Attention::Plans::choose(const AttentionPlanKey& key) {
  Choice choice{.plan = {},
                .part = key,
                .numbers = std::make_unique<AttentionNumbers>(attention_numbers(key)),
                .why = {}};
  open();
  choice.why = unavailable.empty() ? why_not_cudnn(key, cudnn().version()) : unavailable;
  if (!choice.why.empty()) return choice;
  const auto plan_part = [&] {
    CudnnGraph graph;
    describe_attention(graph, choice.part);
    choice.plan = CudnnPlan::make(graph, {.handle = handle, .device = nullptr},
                                  preferred_engine(key, capability, cudnn().version()), choice.why);
  };
  try {
    plan_part();
    if (choice.plan) choice.part = part_within(key, choice.plan->workspace_bytes(), scratch_limit);
    if (choice.part != key) plan_part();
  } catch (const Error& e) {  // the library does not take the graph
    if (e.code() != ExitCode::kGpu) throw;
    choice.plan.reset();
    choice.why = e.what();
  }
  return choice;
}

Choice& Attention::Plans::choice(const AttentionPlanKey& key) {
  auto found = choices.find(key);
  if (found == choices.end()) found = choices.emplace(key, choose(key)).first;
  return found->second;
}

bool Attention::Plans::run(AttentionCall call) {
  if (!why_not_cudnn(call).empty()) return false;
  Choice& its = choice(attention_plan_key(call));
  if (!its.plan) return false;
  auto* const scratch =
      context.scratch<std::byte>(attention_scratch_bytes(its.part, its.plan->workspace_bytes()));
  call.delta = scratch;
  for (int64_t b = 0; b < call.shape.batch; b += its.part.batch) {
    for (int64_t kv = 0; kv < call.shape.n_kv_heads; kv += its.part.n_kv_heads) {
      CudnnArguments arguments = attention_arguments(call, its.part, *its.numbers, b, kv);
      arguments.workspace = scratch + attention_workspace_offset(its.part);
      its.plan->run(handle, arguments);
    }
  }
  return true;
}

Attention::Attention(CudaContext& context, int64_t scratch_limit)
    : plans_(std::make_unique<Plans>(context, scratch_limit)) {}
Attention::~Attention() = default;

void Attention::forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                        const AttentionShape& shape) {
  check_attention(o, lse, qkv, shape);
  if (shape.batch == 0) return;
  const AttentionCall call{.shape = shape,
                           .direction = Direction::kForward,
                           .qkv = qkv,
                           .o = o,
                           .lse = lse,
                           .d_o = {},
                           .dqkv = {}};
  if (!plans_->run(call)) attention_forward(o, lse, qkv, shape, plans_->context);
}

void Attention::backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                         const Tensor& lse, const AttentionShape& shape) {
  check_attention_backward(dqkv, d_o, qkv, o, lse, shape);
  if (shape.batch == 0) return;
  const AttentionCall call{.shape = shape,
                           .direction = Direction::kBackward,
                           .qkv = qkv,
                           .o = o,
                           .lse = lse,
                           .d_o = d_o,
                           .dqkv = dqkv};
  if (!plans_->run(call)) attention_backward(dqkv, d_o, qkv, o, lse, shape, plans_->context);
}

std::string Attention::path(const AttentionShape& shape, Dtype dtype, Direction direction) {
  constexpr std::string_view kPlain = "plain FP32 kernels";
  if (dtype != Dtype::kBf16) return fmt::format("{}: its tensors are {}", kPlain, name(dtype));
  const Choice& its = plans_->choice(attention_plan_key(shape, direction));
  if (!its.plan) return fmt::format("{}: {}", kPlain, its.why);
  return fmt::format("{}, engine {}, {:.0f} MiB of scratch", cudnn().name(), its.plan->engine(),
                     static_cast<double>(its.plan->workspace_bytes()) / 0x1p20);
}

}  // namespace qstep::ops::cuda
