// The generic body of ops/simd/simd.h, on whatever machine this is.
#define QSTEP_MAX_VECTOR_BITS 0
#include "tests/ops/simd_cases.h"

namespace qstep::test {

std::vector<SimdCase> generic_simd_cases() { return simd_cases(); }

}  // namespace qstep::test
