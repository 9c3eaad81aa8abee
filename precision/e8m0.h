// E8M0, the block scale of the MX formats: 2^(code - 127); 255 is NaN. No sign, zero or infinity.
// (OCP MX v1.0; numerics 3.4; the roundings of __nv_cvt_float_to_e8m0.)
#pragma once

#include "precision/lanes.h"

namespace qstep::precision {

// The exponent at or above |x|, saturated: infinity is 254, zero is 0. Codes in 32 bits.
template <class F>
QSTEP_HD inline BitsOf<F> e8m0_round_up(F x) {
  using U = BitsOf<F>;
  const U magnitude = bits(x) & all_bits<F>(0x7FFFFFFFu);
  const U exponent = shift_right(magnitude, 23);
  const U mantissa = magnitude & all_bits<F>(0x007FFFFFu);
  // One up where a fraction is left; from a subnormal, only above 2^-127.
  const U threshold =
      select(equal_bits(exponent, all_bits<F>(0)), all_bits<F>(0x00400000u), all_bits<F>(0));
  const U up = select(less_bits(threshold, mantissa), all_bits<F>(1), all_bits<F>(0));
  const U rounded = exponent + up;
  const U saturated = select(less_bits(all_bits<F>(254), rounded), all_bits<F>(254), rounded);
  return select(is_nan(x), all_bits<F>(255), saturated);
}

// The exponent at or below |x|, saturated likewise; subnormals are 0.
template <class F>
QSTEP_HD inline BitsOf<F> e8m0_round_down(F x) {
  using U = BitsOf<F>;
  const U exponent = shift_right(bits(x) & all_bits<F>(0x7FFFFFFFu), 23);
  const U saturated = select(less_bits(all_bits<F>(254), exponent), all_bits<F>(254), exponent);
  return select(is_nan(x), all_bits<F>(255), saturated);
}

// 2^(code - 127); code 255 is NaN.
template <class F>
QSTEP_HD inline F e8m0_value(BitsOf<F> code) {
  const F normal = from_bits(shift_left(code, 23));
  const F small =
      select(equal_bits(code, all_bits<F>(0)), from_bits(all_bits<F>(0x00400000u)), normal);
  return select(equal_bits(code, all_bits<F>(255)), from_bits(all_bits<F>(0x7FC00000u)), small);
}

// 2^(127 - code): what elements are multiplied by.
template <class F>
QSTEP_HD inline F e8m0_reciprocal(BitsOf<F> code) {
  const F normal = from_bits(shift_left(all_bits<F>(254) - code, 23));
  const F large =
      select(equal_bits(code, all_bits<F>(254)), from_bits(all_bits<F>(0x00400000u)), normal);
  return select(equal_bits(code, all_bits<F>(255)), from_bits(all_bits<F>(0x7FC00000u)), large);
}

}  // namespace qstep::precision
