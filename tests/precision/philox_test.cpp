#include "precision/philox.h"

#include <gtest/gtest.h>

namespace qstep::precision {
namespace {

constexpr uint32_t kOnes = 0xFFFFFFFFu;

void expect_words(uint64_t seed, PhiloxWords counter, PhiloxWords expected) {
  const PhiloxWords found = philox4x32(seed, counter);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(found.w[i], expected.w[i]) << "word " << i;
}

// The known answers that the authors publish with their Random123 library, for ten rounds.
TEST(Philox, KnownAnswers) {
  expect_words(0, {{0, 0, 0, 0}}, {{0x6627E8D5u, 0xE169C58Du, 0xBC57AC4Cu, 0x9B00DBD8u}});
  expect_words(~uint64_t{0}, {{kOnes, kOnes, kOnes, kOnes}},
               {{0x408F276Du, 0x41C83B0Eu, 0xA20BC7C6u, 0x6D5451FDu}});
  // Key and counter from the digits of pi; the low word of the key comes first.
  expect_words(0x299F31D0A4093822u, {{0x243F6A88u, 0x85A308D3u, 0x13198A2Eu, 0x03707344u}},
               {{0xD16CFE09u, 0x94FDCCEBu, 0x5001E420u, 0x24126EA1u}});
}

}  // namespace
}  // namespace qstep::precision
