#include "ops/quantize_units.cuh"

namespace qstep::ops::device {

QSTEP_QUANTIZE_UNITS(, 32);

}  // namespace qstep::ops::device
