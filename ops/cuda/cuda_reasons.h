// What is said of a GPU that cannot be used and of a call of CUDA that failed: what, where, what
// was expected and found, what to do. From plain values, so that tests need no GPU; free of CUDA's
// headers, and of fmt for nvcc.
#pragma once

#include <string>
#include <string_view>

#include "ops/error.h"

namespace qstep::ops::cuda {

// Versions of CUDA as it numbers them: 13000 is 13.0. driver 0: there is none.
std::string old_driver_text(int driver, int built_with);
std::string no_gpu_text();
// capability: 90 is 9.0; built_for: "9.0, 10.0 and 12.0".
std::string no_code_text(std::string_view gpu, int capability, std::string_view built_for);

// Of a failed call: `status` is the cudaError_t, `name` and `text` what CUDA calls it. Code 51
// where the memory is full, otherwise 50.
Error call_error(int status, std::string_view name, std::string_view text, std::string_view call);

// What to do about a cudaError_t; empty where there is nothing to say beyond its name.
std::string_view advice_on(int status);

// free, total: of the GPU's memory, in bytes.
Error memory_error(int64_t wanted, int64_t free, int64_t total);

}  // namespace qstep::ops::cuda
