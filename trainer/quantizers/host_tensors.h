// A backend's tensors for code that reads and writes memory itself: files, self-tests.
#pragma once

#include <span>
#include <vector>

#include "ops/ops.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/quantizers/self_test.h"

namespace qstep::trainer {

// The same tensors in host memory: themselves, or copies where the backend has memory of its own.
class HostTensors {
 public:
  // Waits for earlier operations on them. `ops` and what the tensors point at outlive this.
  HostTensors(ops::Ops& ops, std::vector<NamedTensor> tensors);

  std::span<const NamedTensor> tensors() const { return host_; }
  // Brings what was written into tensors() to the backend.
  void upload();

 private:
  ops::Ops& ops_;
  std::vector<NamedTensor> backend_, host_;
  ops::Buffer memory_;  // of the copies
};

// Ops::quantize for tensors in host memory. Of `call` the tensors are copied, no join.
QuantizeFunction quantize_on_host(ops::Ops& ops);

}  // namespace qstep::trainer
