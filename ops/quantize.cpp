#include "ops/quantize.h"

namespace qstep::ops::cpu {

void quantize(const QuantizedTensor&, const QuantizedTensor&, const Tensor&, const QuantCall&,
              Workspace&) {
  check(false, "quantize: in the making");
}
EncodedTensor quantize_encoded(const QuantizedTensor&, const Tensor&, const QuantCall&) {
  check(false, "quantize: in the making");
  return {};
}

}  // namespace qstep::ops::cpu
