// Calls that a device gets again and again, recorded once and then handed over as one: CUDA graphs.
// Where a step is thousands of calls, the host needs as long to hand each over as the device to
// work on a small one.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace qstep::ops {

// What differs between runs of calls that are otherwise the same.
struct Moment {
  uint32_t step = 0;         // of QuantRandom
  uint64_t micro_batch = 0;  // of QuantRandom, but for weights: those count none
  float lr = 0;              // of AdamWParams
  int64_t t = 1;             // of AdamWParams
};

// What a call takes at another moment.
inline QuantRandom at(QuantRandom random, const Moment& moment) {
  random.step = moment.step;
  constexpr auto kWeight = static_cast<uint32_t>(precision::LinearTensor::kW);
  if (random.slot != kWeight) random.micro_batch = moment.micro_batch;
  return random;
}
inline AdamWParams at(AdamWParams params, const Moment& moment) {
  params.lr = moment.lr;
  params.t = moment.t;
  return params;
}

class Recording {
 public:
  virtual ~Recording() = default;

  // Whether it can run: memory of the backend that its calls use may have moved since.
  virtual bool valid() const = 0;
  // Hands its calls over, at this moment, with the marks of the clock that were made among them:
  // the number of the first of these.
  virtual int64_t run(const Moment& moment) = 0;
};

// Keeps the calls that are made while it lives, instead of running them. One that goes without
// end() takes them along.
class Capture {
 public:
  virtual ~Capture() = default;

  // Runs what was kept. Null: nothing was.
  virtual std::unique_ptr<Recording> end() = 0;
};

class Recorder {
 public:
  virtual ~Recorder() = default;

  // Of the calls of this thread from here on; one at a time. Each call was made before with the
  // same shapes: while one is recorded it can neither take memory nor choose kernels. None copies
  // to the host or from it, or waits.
  virtual std::unique_ptr<Capture> begin() = 0;
};

}  // namespace qstep::ops
