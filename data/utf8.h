// Just enough UTF-8 to cut text without cutting a character.
#pragma once

#include <cstddef>
#include <string_view>

namespace qstep::data {

// Length of the well-formed UTF-8 character at text[at] (no surrogates, no over-long forms, at most
// U+10FFFF), or 0 when there is none.
inline size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const auto follows = [&](size_t i) { return at + i < text.size() && (byte(i) & 0xc0) == 0x80; };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return follows(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    if (!follows(1) || !follows(2)) return 0;
    if (lead == 0xe0 && byte(1) < 0xa0) return 0;   // over-long
    if (lead == 0xed && byte(1) >= 0xa0) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if (lead == 0xf0 && byte(1) < 0x90) return 0;   // over-long
    if (lead == 0xf4 && byte(1) >= 0x90) return 0;  // above U+10FFFF
    return 4;
  }
  return 0;
}

// Largest cut <= at that does not separate a continuation byte from what is before it.
inline size_t utf8_cut(std::string_view text, size_t at) {
  size_t cut = at;
  while (cut > 0 && at - cut < 4 && cut < text.size() &&
         (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) {
    --cut;
  }
  return at - cut < 4 && cut > 0 ? cut : at;
}

}  // namespace qstep::data
