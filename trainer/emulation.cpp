#include "trainer/emulation.h"

#include "trainer/machine.h"

namespace qstep::trainer {

bool emulated(precision::ComputeType compute) {
  if (compute == precision::ComputeType::kFp32) return false;
  static const bool emulates_bf16 = read_machine().bf16_support() == Bf16Support::kEmulated;
  return emulates_bf16;
}

}  // namespace qstep::trainer
