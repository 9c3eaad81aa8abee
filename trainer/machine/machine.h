// What this process may use of the machine it runs on: facts only, read from the system, no
// measuring.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qstep::trainer {

// How BF16 products are made: decides whether BF16 is faster than FP32 or only smaller.
enum class Bf16Support : uint8_t {
  kTiles,        // AMX-BF16
  kDotProducts,  // AVX512_BF16
  kEmulated,     // AVX-512 or less: widened to FP32
};

struct Machine {
  std::string cpu_name;      // "AMD EPYC 9654", or "unknown"
  int64_t cores = 1;         // hardware threads that are online
  int64_t usable_cores = 1;  // of these, what affinity and cgroup quota leave to this process
  std::string cores_limit;   // what makes usable_cores smaller; empty where nothing does
  bool avx2 = false;         // with FMA
  bool avx512 = false;       // F, BW, DQ, VL
  bool avx512_bf16 = false;
  bool amx_bf16 = false;
  int64_t l3_bytes = 0;      // of all caches that the usable cores share; 0 where unknown
  int64_t memory_bytes = 0;  // of the machine, or of the cgroup where that is less
  int64_t available_bytes = 0;
  std::string huge_pages;  // transparent huge pages: "always", "madvise", "never", "unknown"

  Bf16Support bf16_support() const {
    return amx_bf16      ? Bf16Support::kTiles
           : avx512_bf16 ? Bf16Support::kDotProducts
                         : Bf16Support::kEmulated;
  }
};

Machine read_machine();

// One sentence for people.
std::string_view describe(Bf16Support support);

struct Disk {
  bool writable = false;   // tried with a file, which is removed again
  int64_t free_bytes = 0;  // for this user
};
Disk read_disk(const std::string& folder);

}  // namespace qstep::trainer
