#include "tests/ops/quantize_host_launch.h"

namespace qstep::ops::device {
template void quantize_with(const test::HostQuantizeLaunch&, const QuantizedTensor&,
                            const QuantizedTensor&, const Tensor&, const QuantCall&);
}  // namespace qstep::ops::device
