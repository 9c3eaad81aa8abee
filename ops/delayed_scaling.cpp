#include "ops/delayed_scaling.h"

namespace qstep::ops::cpu {

void update_delayed_scales(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                           const precision::DelayedScaling&) {
  check(false, "update_delayed_scales: in the making");
}

}  // namespace qstep::ops::cpu
