#include "ops/cuda/cuda_reasons.h"

#include <array>

namespace qstep::ops::cuda {

namespace {

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// What follows from some errors, by cudaError_t (cuda_context.cpp holds the numbers against
// CUDA's header).
struct Advice {
  int first, last;
  std::string_view text;
};
constexpr std::string_view kSticky =
    "a kernel of this or of an earlier call failed, and nothing runs on the GPU in this process "
    "any "
    "more: start again, the run goes on from its last checkpoint; if it comes again, "
    "CUDA_LAUNCH_BLOCKING=1 names the call";
constexpr std::string_view kHardware =
    "a fault of the hardware: start again on another node and have this one looked at (nvidia-smi "
    "-q, dmesg)";
constexpr std::array kAdvice{
    Advice{2, 2, "lower train.micro_batch or train.seq_len, or use more ranks"},
    Advice{46, 46,
           "another process has the GPU to itself, or it is in no mode to compute: see nvidia-smi"},
    Advice{214, 214, kHardware},  // uncorrectable ECC error
    Advice{220, 220, kHardware},  // uncorrectable NVLink error
    Advice{226, 226, kHardware},  // contained memory error
    Advice{700, 700, kSticky},    // illegal address
    Advice{702, 702, kSticky},    // launch timeout
    Advice{710, 710, kSticky},    // assertion
    Advice{714, 719, kSticky},    // hardware stack, illegal instruction ... launch failure
    Advice{802, 802,
           "the node is not ready: where GPUs hang on NVSwitches, nvidia-fabricmanager has to run"},
    Advice{803, 803,
           "the driver in the kernel and its libraries differ in version: reboot, or load the "
           "driver again"},
    Advice{804, 804, "this GPU needs a driver as new as the CUDA of the container or the build"},
    Advice{805, 805,
           "the CUDA MPS daemon does not answer: start it, or unset CUDA_MPS_PIPE_DIRECTORY"},
    Advice{999, 999, "the driver does not know either: see dmesg; loading it again often helps"}};

}  // namespace

std::string_view advice_on(int status) {
  for (const Advice& advice : kAdvice) {
    if (advice.first <= status && status <= advice.last) return advice.text;
  }
  return {};
}

std::string old_driver_text(int driver, int built_with) {
  if (driver == 0) {
    return "there is no NVIDIA driver (libcuda.so.1): install it, or start the container with "
           "its GPUs (--gpus all)";
  }
  return fmt::format(
      "the NVIDIA driver is for CUDA {}, older than the CUDA {} that qstep was built with: "
      "install a newer driver, or build qstep with the older toolkit",
      version_text(driver), version_text(built_with));
}

std::string no_gpu_text() {
  return "the NVIDIA driver lists no GPU: is CUDA_VISIBLE_DEVICES empty, or did the batch job ask "
         "for "
         "none?";
}

std::string no_code_text(std::string_view gpu, int capability, std::string_view built_for) {
  return fmt::format(
      "this qstep holds no code for the {} (compute capability {}.{}), only for {}: add {} to "
      "CMAKE_CUDA_ARCHITECTURES and build again",
      gpu, capability / 10, capability % 10, built_for, capability);
}

Error call_error(int status, std::string_view name, std::string_view text, std::string_view call) {
  constexpr int kMemoryAllocation = 2;
  const std::string_view advice = advice_on(status);
  return {
      status == kMemoryAllocation ? ExitCode::kOutOfMemory : ExitCode::kGpu,
      fmt::format("CUDA: {}: {} ({}){}{}", call, text, name, advice.empty() ? "" : ": ", advice)};
}

Error memory_error(int64_t wanted, int64_t free, int64_t total) {
  const auto gib = [](int64_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
  return {
      ExitCode::kOutOfMemory,
      fmt::format("the GPU has no {:.2f} GiB left: {:.2f} of its {:.2f} GiB are free (nvidia-smi "
                  "shows what other processes have)",
                  gib(wanted), gib(free), gib(total))};
}

}  // namespace qstep::ops::cuda
