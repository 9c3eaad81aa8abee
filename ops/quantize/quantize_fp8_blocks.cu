#include "ops/quantize/quantize_formats.cuh"

namespace qstep::ops::device {

QSTEP_QUANTIZE_FP8_BLOCKS();

}  // namespace qstep::ops::device
