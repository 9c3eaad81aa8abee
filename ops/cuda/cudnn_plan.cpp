#include "ops/cuda/cudnn_plan.h"

#include <algorithm>

#include "ops/error.h"

namespace qstep::ops {

namespace {

CudnnDescriptor engine_of(const CudnnDescriptor& configuration) {
  return std::move(
      configuration.get_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR)
          .at(0));
}

bool deterministic(const CudnnDescriptor& configuration) {
  const auto notes = engine_of(configuration)
                         .get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE);
  return std::ranges::find(notes, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) == notes.end();
}

std::vector<CudnnDescriptor> proposals(const CudnnDescriptor& graph, const CudnnTarget& target,
                                       cudnnBackendHeurMode_t mode) {
  CudnnDescriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph).set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  if (target.device != nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.device);
  heuristic.finalize();
  return heuristic.get_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                   CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
}

// None where the library refuses.
std::optional<CudnnDescriptor> configuration_of(const CudnnDescriptor& graph,
                                                const CudnnTarget& target,
                                                const CudnnEngine& wanted) {
  CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, wanted.engine);
  if (target.device != nullptr) engine.set(CUDNN_ATTR_ENGINE_DEVICEPROP, *target.device);
  if (engine.try_finalize() != CUDNN_STATUS_SUCCESS) return {};
  std::vector<CudnnDescriptor> choices;
  for (const auto& [knob, value] : wanted.knobs) {
    choices.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)
        .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, knob)
        .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value)
        .finalize();
  }
  CudnnDescriptor configuration(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  configuration.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine)
      .set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, std::span<const CudnnDescriptor>(choices));
  if (configuration.try_finalize() != CUDNN_STATUS_SUCCESS) return {};
  return configuration;
}

}  // namespace

std::vector<CudnnDescriptor> cudnn_configurations(const CudnnDescriptor& graph,
                                                  const CudnnTarget& target,
                                                  const std::optional<CudnnEngine>& preferred) {
  std::vector<CudnnDescriptor> found;
  if (preferred) {
    if (auto configuration = configuration_of(graph, target, *preferred)) {
      found.push_back(std::move(*configuration));
    }
  }
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    for (CudnnDescriptor& configuration : proposals(graph, target, mode)) {
      if (deterministic(configuration)) found.push_back(std::move(configuration));
    }
  }
  return found;
}

CudnnPlan::CudnnPlan(CudnnDescriptor plan, int64_t engine)
    : plan_(std::move(plan)),
      workspace_bytes_(plan_.get<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)),
      engine_(engine) {}

std::optional<CudnnPlan> CudnnPlan::make(const CudnnGraph& graph, const CudnnTarget& target,
                                         const std::optional<CudnnEngine>& preferred,
                                         std::string& why) {
  const CudnnDescriptor finished = graph.finish(target.handle);
  why = "the library has no kernel for this shape";
  for (const CudnnDescriptor& configuration : cudnn_configurations(finished, target, preferred)) {
    CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    if (target.handle != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, target.handle);
    if (target.device != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.device);
    const cudnnStatus_t status = plan.try_finalize();
    if (status == CUDNN_STATUS_SUCCESS) {
      return CudnnPlan(std::move(plan),
                       engine_of(configuration).get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
    }
    why = cudnn().describe(status, "no plan");
  }
  return {};
}

void CudnnPlan::run(cudnnHandle_t handle, const CudnnArguments& arguments) {
  auto found = seen_.find(arguments);
  if (found == seen_.end()) {
    CudnnDescriptor d(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    d.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::span<const int64_t>(arguments.names))
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, std::span<void* const>(arguments.memory))
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, arguments.workspace)
        .finalize();
    found = seen_.emplace(arguments, std::move(d)).first;
  }
  cudnn().check(cudnn().execute(handle, plan_.raw(), found->second.raw()), "cudnnBackendExecute");
}

}  // namespace qstep::ops
