#include "trainer/weight_split.h"

namespace qstep::trainer {

LocalShape local_shape(const WeightSpec& spec, int) { return {spec.rows, spec.cols}; }

std::vector<LocalBlock> local_blocks(const WeightSpec& spec, const TensorPlace&) {
  return {{0, 0, spec.rows, spec.cols, 0}};
}

}  // namespace qstep::trainer
