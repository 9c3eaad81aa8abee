// The quantizers one unit after another on one float at a time: what a thread of a GPU does, and
// what the CPU's sixteen lanes must equal bit for bit. The arithmetic is precision/quantize_unit.h;
// here is only which elements it gets. For checks: it takes its time.
#pragma once

#include "ops/quantize/quantize.h"

namespace qstep::ops {

// As cpu::quantize_encoded: fills q and returns the codes. Of `call` it reads random, place and
// delayed_scale, and takes no join; statistics, amaxes and the flag of non-finite elements stay
// untouched.
EncodedTensor quantize_scalar(const QuantizedTensor& q, const Tensor& x, const QuantCall& call);

}  // namespace qstep::ops
