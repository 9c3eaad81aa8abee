// Phases that all ranks pass or leave together, so that an error on one rank cannot leave the
// others waiting in a collective that it never reaches.
//
// What `f` throws ends the phase on every rank, with an Error of the same code and text. Inside `f`
// are no collectives of this group.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ops/error.h"
#include "parallel/comm.h"

namespace qstep::trainer {

// An Error that every rank of several throws at the same point: all may end in order, and one of
// them tells it.
class AgreedError : public ops::Error {
 public:
  using ops::Error::Error;
};

// Every rank runs f. When some throw, all throw the Error of the first of them, "rank 3: ..."
// (without that where all threw the same). Ranks that only noticed another's end (peer died, hang)
// come behind those that know of a cause.
void agree(parallel::Comm& comm, const std::function<void()>& f);
// The same; returns what f returned on rank 0, 1, ...
std::vector<std::string> agree_texts(parallel::Comm& comm, const std::function<std::string()>& f);

// Rank 0 alone runs f, and its Error reaches all as it is.
void on_first_rank(parallel::Comm& comm, const std::function<void()>& f);
// The same; returns what f returned.
std::string text_of_first_rank(parallel::Comm& comm, const std::function<std::string()>& f);

}  // namespace qstep::trainer
