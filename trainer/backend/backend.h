// Which backend a run computes on.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "ops/ops.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

// kAuto: the GPU's where there is one, the current one of several. An Error (gpu) where a GPU is
// demanded and cannot be had. Of several ranks in rank_backend.h.
std::unique_ptr<ops::Ops> make_backend(Device device);

// What to say where a GPU is demanded and cannot be had.
std::string no_gpu_text(std::string_view why);

// The GPU's, to be asked what it can do; null, with the reason in `why`, where there is none, or
// where others have its memory.
std::unique_ptr<ops::Ops> ask_gpu(std::string& why);

// For people: Ops::name, and of a GPU which kernels compute the run's attention, backward being
// what decides its time ("NVIDIA H200, attention by cuDNN 9.19.0, engine 6, 128 MiB of scratch").
std::string backend_text(const ops::Ops& ops, const Config& config);

}  // namespace qstep::trainer
