#include "ops/cuda/cuda_capture.h"

#include "ops/cuda/cuda_context.h"

namespace qstep::ops {

// What the next call would wait for: on one stream the call before it.
cudaGraphNode_t CudaCapture::last_node() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  size_t n = 0;
#if CUDART_VERSION >= 13000
  cuda_check(cudaStreamGetCaptureInfo(stream_, &status, nullptr, nullptr, &nodes, nullptr, &n),
             "cudaStreamGetCaptureInfo");
#else
  cuda_check(cudaStreamGetCaptureInfo_v2(stream_, &status, nullptr, nullptr, &nodes, &n),
             "cudaStreamGetCaptureInfo");
#endif
  check(status == cudaStreamCaptureStatusActive && n == 1, "a recorded kernel is not in the graph");
  return nodes[0];
}

void CudaCapture::set_arguments(cudaGraphExec_t graph, cudaGraphNode_t node,
                                const KernelLaunch& launch, void** arguments) {
  cudaKernelNodeParams params{};
  params.func = const_cast<void*>(launch.function);
  params.gridDim = dim3(launch.blocks);
  params.blockDim = dim3(launch.threads);
  params.sharedMemBytes = static_cast<unsigned>(launch.shared_bytes);
  params.kernelParams = arguments;
  cuda_check(cudaGraphExecKernelNodeSetParams(graph, node, &params),
             "cudaGraphExecKernelNodeSetParams");
}

}  // namespace qstep::ops
