// Recorded calls (ops/recorder.h) as CUDA graphs: captured from the stream once, launched as one.
// CUDA C++ Programming Guide, "CUDA Graphs".
#pragma once

#include "ops/cuda/cuda_clock.h"
#include "ops/cuda/cuda_context.h"
#include "ops/recorder.h"

namespace qstep::ops {

class CudaRecorder final : public Recorder {
 public:
  // Both outlive this and its recordings.
  CudaRecorder(CudaContext& context, CudaClock& clock) : context_(context), clock_(clock) {}

  // Other threads may take memory meanwhile.
  std::unique_ptr<Capture> begin() override;

 private:
  CudaContext& context_;
  CudaClock& clock_;
};

}  // namespace qstep::ops
