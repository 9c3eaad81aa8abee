// What the CPU backend was built for, which library it stands on and what that picks on this
// processor: for reports.
#pragma once

#include <string>
#include <string_view>

#include "ops/tensor.h"

namespace qstep::ops {

// What the compiler was told this binary may use: "AVX-512 with BF16", "AVX2 with FMA".
std::string_view built_for();

std::string onednn_version();            // "2.6.3"
std::string_view onednn_instructions();  // the widest set it dispatches: "AVX-512 BF16"

// The kernel that oneDNN picks for a square matrix product of this type ("brg:avx512_core_bf16");
// empty when it has none on this processor.
std::string gemm_kernel(Dtype dtype);

}  // namespace qstep::ops
