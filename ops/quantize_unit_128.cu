#include "ops/quantize_units.cuh"

namespace qstep::ops::device {

QSTEP_QUANTIZE_UNITS(, 128);

}  // namespace qstep::ops::device
