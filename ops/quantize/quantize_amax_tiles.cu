#include "ops/quantize/quantize_formats.cuh"

namespace qstep::ops::device {

QSTEP_QUANTIZE_AMAXES();

}  // namespace qstep::ops::device
