// Philox4x32-10: random bits as a pure function of a key and a counter, so that tiling, threads,
// sharding and resume cannot change them. Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3" (SC 2011), table 2.
#pragma once

#include <cstdint>

#include "precision/hd.h"

namespace qstep::precision {

struct PhiloxWords {
  uint32_t w[4];
};

// counter = (c0, c1, c2, c3), key = 64-bit seed (low word first).
QSTEP_HD inline PhiloxWords philox4x32(uint64_t seed, PhiloxWords counter) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = counter.w[0], c1 = counter.w[1], c2 = counter.w[2], c3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * c0;
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = static_cast<uint32_t>(p1);
    c2 = n2;
    c3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace qstep::precision
