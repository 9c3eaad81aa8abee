// A device that is not there, behind CUDA's functions as far as the world of GPUs calls them: what
// is put on a stream is done later, in order, and across streams as events say. Memory is the
// host's. Work is done while the host asks for events, and little of it each time: who reads ahead
// of an event finds the old values.
#pragma once

#include <cuda_runtime.h>

#include <functional>

namespace qstep::parallel {

// The work of a kernel or an exchange. It may wait for other ranks, which then must be doing
// theirs.
void put_on_stream(cudaStream_t stream, std::function<void()> work);

}  // namespace qstep::parallel
