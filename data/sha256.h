// SHA-256 (FIPS 180-4), used to name tokenizers. Plain and portable; not on any hot path.
#pragma once

#include <string>
#include <string_view>

namespace qstep::data {

// Digest of all bytes as 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace qstep::data
