#include "ops/quantize/quantize_formats.cuh"

namespace qstep::ops::device {

QSTEP_QUANTIZE_NVFP4();

}  // namespace qstep::ops::device
