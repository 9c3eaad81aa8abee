#include "ops/quantize/quantize_formats.cuh"

namespace qstep::ops::device {

QSTEP_QUANTIZE_MXFP8();

}  // namespace qstep::ops::device
