#include "tests/support/quant_reference_formats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace qstep::test::reference {

namespace {

// (1 + m / 2^mantissa_bits) 2^(e - bias), without the leading one and with e = 1 where e is 0.
std::vector<float> value_table(int mantissa_bits, int bias, int largest_code) {
  std::vector<float> values;
  const int per_binade = 1 << mantissa_bits;
  for (int code = 0; code <= largest_code; ++code) {
    const int e = code / per_binade, m = code % per_binade;
    const int significand = e == 0 ? m : per_binade + m;
    values.push_back(
        std::ldexp(static_cast<float>(significand), std::max(e, 1) - bias - mantissa_bits));
  }
  return values;
}

// The index of the largest value at or below a >= 0.
size_t at_or_below(const Format& format, float a) {
  const auto above = std::upper_bound(format.values.begin(), format.values.end(), a);
  return static_cast<size_t>(above - format.values.begin()) - 1;
}

uint8_t with_sign_of(const Format& format, size_t code, float x) {
  return static_cast<uint8_t>(code | (std::signbit(x) ? format.sign : 0u));
}

}  // namespace

const Format& e2m1() {
  static const Format format{{0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f}, 0x8, 0x7, 2};
  return format;
}

const Format& e4m3() {
  static const Format format{value_table(3, 7, 0x7E), 0x80, 0x7F, 8};
  return format;
}

const Format& e5m2() {
  static const Format format{value_table(2, 15, 0x7B), 0x80, 0x7F, 15};
  return format;
}

uint8_t nearest(const Format& format, float x) {
  if (std::isnan(x)) return format.nan;
  const float a = std::fabs(x);
  const size_t below = at_or_below(format, a);
  if (below + 1 == format.values.size()) return with_sign_of(format, below, x);
  const double to_below = static_cast<double>(a) - static_cast<double>(format.values[below]);
  const double to_above = static_cast<double>(format.values[below + 1]) - static_cast<double>(a);
  const bool up = to_above < to_below || (to_above == to_below && below % 2 == 1);
  return with_sign_of(format, up ? below + 1 : below, x);
}

uint8_t toward_zero(const Format& format, float x) {
  if (std::isnan(x)) return format.nan;
  return with_sign_of(format, at_or_below(format, std::fabs(x)), x);
}

uint8_t stochastic(const Format& format, float x, uint8_t r) {
  if (std::isnan(x)) return format.nan;
  const float a = std::fabs(x);
  const size_t last = format.values.size() - 1;
  const size_t below = std::min(at_or_below(format, a), last - 1);
  const float step = format.values[below + 1] - format.values[below];
  const float t = std::fma(static_cast<float>(r) / 256.0f, step, a);
  return with_sign_of(format, at_or_below(format, t), x);
}

uint8_t stochastic_between_neighbours(const Format& format, float x, float uniform) {
  const size_t below = at_or_below(format, x);
  if (below + 1 == format.values.size()) return static_cast<uint8_t>(below);
  const double low = static_cast<double>(format.values[below]);
  const double high = static_cast<double>(format.values[below + 1]);
  const double fraction = (static_cast<double>(x) - low) / (high - low);
  return static_cast<uint8_t>(static_cast<double>(uniform) < fraction ? below + 1 : below);
}

float value(const Format& format, uint8_t code) {
  const size_t magnitude = code & (format.sign - 1u);
  const float sign = (code & format.sign) != 0 ? -1.0f : 1.0f;
  if (magnitude < format.values.size()) return sign * format.values[magnitude];
  const bool infinity = &format == &e5m2() && magnitude == format.values.size();
  return infinity ? sign * std::numeric_limits<float>::infinity()
                  : std::numeric_limits<float>::quiet_NaN();
}

double e8m0_value(uint8_t code) {
  return code == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, code - 127);
}

uint8_t e8m0_up(float x) {
  if (std::isnan(x)) return 255;
  int code = 0;
  while (code < 254 && e8m0_value(static_cast<uint8_t>(code)) < std::fabs(static_cast<double>(x))) {
    ++code;
  }
  return static_cast<uint8_t>(code);
}

uint8_t e8m0_down(float x) {
  if (std::isnan(x)) return 255;
  int code = 254;
  while (code > 0 && e8m0_value(static_cast<uint8_t>(code)) > std::fabs(static_cast<double>(x))) {
    --code;
  }
  return static_cast<uint8_t>(code);
}

float bf16(float x) {
  if (std::isnan(x)) return std::bit_cast<float>(0x7FFF0000u);
  const uint32_t pattern = std::bit_cast<uint32_t>(x);
  const uint32_t below = pattern & 0xFFFF0000u, rest = pattern & 0xFFFFu;
  const bool odd = (below & 0x10000u) != 0;
  const bool up = rest > 0x8000u || (rest == 0x8000u && odd);
  return std::bit_cast<float>(up ? below + 0x10000u : below);
}

}  // namespace qstep::test::reference
