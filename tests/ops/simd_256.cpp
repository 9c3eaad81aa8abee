// The body of ops/simd/simd.h for registers of 256 bits where this machine has them, otherwise the
// generic one.
#define QSTEP_MAX_VECTOR_BITS 256
#include "tests/ops/simd_cases.h"

namespace qstep::test {

std::vector<SimdCase> simd_256_cases() { return simd_cases(); }

}  // namespace qstep::test
