// What a pass through the model says of its buckets (WeightSpec::bucket) as it goes, so that
// weights can arrive and gradients leave while it computes.
#pragma once

#include <cstdint>

namespace qstep::trainer {

class BucketObserver {
 public:
  virtual ~BucketObserver() = default;
  // The weights of the bucket are about to be read for the first time in a pass.
  virtual void weights_wanted(int64_t bucket) = 0;
  // The pass has added everything that it adds to the bucket's gradient.
  virtual void gradient_complete(int64_t bucket) = 0;
};

}  // namespace qstep::trainer
