// Which devices CUDA lists, and whether they can run the kernels of this binary.
#pragma once

#include <string>

namespace qstep::ops::cuda {

// How many it lists; with none, why. Touches none of them.
int count_devices(std::string& why);

// Empty where the current device can run them; otherwise why not: no driver or one that is too old,
// no GPU, or one that the binary holds no code for.
std::string why_no_device();

// Whether what the current device runs has its stochastic rounding
// (precision/stochastic_rounding.h), found by asking a kernel, which takes a moment.
bool has_hardware_rounder();

}  // namespace qstep::ops::cuda
