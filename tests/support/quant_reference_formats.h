// The element and scale formats as tables of their values, rounded to by search. Written from the
// formats' specifications (numerics 3 and 4.2), sharing nothing with precision/: the tests hold
// that room against it.
#pragma once

#include <cstdint>
#include <vector>

namespace qstep::test::reference {

// Values of the codes with sign 0, ascending, up to the largest finite one.
struct Format {
  std::vector<float> values;
  uint8_t sign;  // the sign's bit
  uint8_t nan;   // what NaN becomes
  int emax;      // exponent of the largest value
  float max() const { return values.back(); }
};

const Format& e2m1();
const Format& e4m3();
const Format& e5m2();

// Codes; all saturate, infinities too, and copy the sign, that of zero too.
uint8_t nearest(const Format& format, float x);  // of two equally near the even code
uint8_t toward_zero(const Format& format, float x);
// Numerics 4.2 for any table: t = fma(r / 256, the distance from the value at or below |x| to the
// next, |x|), and then the value at or below t.
uint8_t stochastic(const Format& format, float x, uint8_t r);

// The neighbour above x >= 0 if uniform < (x - below) / (above - below), else the one below.
uint8_t stochastic_between_neighbours(const Format& format, float x, float uniform);

// Codes above the largest finite one are NaN, but for E5M2's infinity.
float value(const Format& format, uint8_t code);

// E8M0, 2^(code - 127): the smallest power at or above |x|, the largest at or below it; saturated,
// NaN 255.
uint8_t e8m0_up(float x);
uint8_t e8m0_down(float x);
double e8m0_value(uint8_t code);

// BF16: nearest even, as a float; NaN is 0x7FFF0000.
float bf16(float x);

}  // namespace qstep::test::reference
