// Whether this machine can run the kernels of this binary.
#pragma once

#include <string>

namespace qstep::ops::cuda {

// Empty where it can; otherwise why not: no driver or one that is too old, no GPU, or one that the
// binary holds no code for. Of the current device.
std::string why_no_device();

}  // namespace qstep::ops::cuda
