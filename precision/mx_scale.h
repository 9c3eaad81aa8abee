// The shared exponent of an MX block (OCP MX v1.0; numerics 7.4 and 7.10), as an E8M0 code.
#pragma once

#include "precision/e8m0.h"
#include "precision/element_format.h"

namespace qstep::precision {

// 2^(code - 127) at or above amax / max: elements saturate by rounding at most (NVIDIA).
template <ElementFormat kFormat, class F>
QSTEP_HD inline BitsOf<F> mx_scale_up(F amax) {
  return e8m0_round_up(amax * all<F>(1.0f / kElement<kFormat>.max));
}

// floor(log2 amax) - emax: the block's largest elements may saturate (OCP).
template <ElementFormat kFormat, class F>
QSTEP_HD inline BitsOf<F> mx_scale_floor(F amax) {
  using U = BitsOf<F>;
  const U exponent = e8m0_round_down(amax);
  const U emax = all_bits<F>(static_cast<uint32_t>(kElement<kFormat>.emax));
  return select(less_bits(exponent, emax), all_bits<F>(0), exponent - emax);
}

}  // namespace qstep::precision
