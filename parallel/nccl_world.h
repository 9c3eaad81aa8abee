// The world of ranks with a GPU each: tensors in device memory, messages over NCCL.
#pragma once

#include <memory>
#include <string>

#include "parallel/comm.h"

namespace qstep::parallel {

// The ranks of `hosts`, which carries what they need to find each other; all of them together, each
// with the GPU of its own that is current. `compute_stream` is the cudaStream_t that the caller
// computes on: a collective begins when what was launched there before it is done, and behind
// wait() the stream goes on when it is over. Collectives run on one stream, in order; sends and
// receives that follow each other begin together, with the next wait() or collective. Sums are
// formed in the tree of reduction_tree.h by a kernel of ours, as in every world; NCCL moves bytes
// only. `observer` is asked from the first moment on; null: nobody.
//
// An Error (GPU) where qstep was built without NCCL, where the library is missing, or where NCCL
// finds no way between the GPUs.
std::unique_ptr<Comm> make_nccl(Comm& hosts, void* compute_stream,
                                CollectiveObserver* observer = nullptr);

// The library and its version, "NCCL 2.28.9"; an Error (GPU) where it cannot be had.
std::string nccl_name();

}  // namespace qstep::parallel
