// The world of ranks with a GPU each: tensors in device memory, messages over NCCL.
#pragma once

#include <memory>
#include <string>

#include "parallel/comm.h"
#include "parallel/launch.h"

namespace qstep::parallel {

// The ranks of `hosts`, which carries what they need to find each other; rank r of a node takes its
// GPU r. `compute_stream` is the cudaStream_t that the caller computes on: a collective begins when
// what was launched there before it is done, and wait() returns to the host when it is over.
// Collectives run on one stream, in order; sends and receives that follow each other begin
// together, with the next wait() or collective. Sums are formed in the tree of reduction_tree.h by
// a kernel of ours, as in every world; NCCL moves bytes only.
//
// An Error (GPU) where qstep was built without NCCL, where there is no GPU, or fewer than ranks on
// this node.
std::unique_ptr<Comm> make_nccl(Comm& hosts, const Launch& launch, void* compute_stream);

}  // namespace qstep::parallel
