// What the ranks of a tensor-parallel group tell each other inside a pass through the model
// (Shoeybi et al. 2019, "Megatron-LM"; Korthikanti et al. 2022, section 4.2.2: sequence parallel).
//
// Where a layer is whole, as the norms and the residual stream are, each rank computes its part of
// the N token rows; where a layer is shared, each rank computes its features of all rows:
//
//   norm (own rows) -> gather_rows -> qkv, up: own features, all rows
//   attn_out, down: all rows, a part of each sum -> sum_rows -> stream (own rows)
//
// and the other way round in backward. A tensor [N, C] between the two is one buffer: own rows are
// a view of it, so that nothing is copied.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/quantized_tensor.h"
#include "parallel/comm.h"
#include "trainer/model/weight_split.h"
#include "trainer/timing/recordings.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

class TensorParallel final : public ops::AmaxJoin {
 public:
  // The one rank of its group: all rows are its own, and nothing is told to anybody.
  TensorParallel() = default;
  // All outlive this. Time spent waiting counts as Category::kTpComm. What is told to the others is
  // not recorded.
  TensorParallel(parallel::Comm& group, Timeline& timer, Recordings& recordings);

  const TensorPlace& place() const { return place_; }
  int size() const { return place_.size; }
  int rank() const { return place_.rank; }

  // Of n rows, a multiple of size().
  int64_t n_own(int64_t n) const { return n / size(); }
  // This rank's rows of x.
  ops::Tensor own_rows(const ops::Tensor& x) const {
    return x.row_range(n_own(x.rows) * rank(), n_own(x.rows));
  }

  // Every rank's rows of x reach all of them.
  void gather_rows(const ops::Tensor& x);
  // Own rows of x become their sum over the ranks, formed in FP32 and rounded once. The others keep
  // what this rank has there.
  void sum_rows(const ops::Tensor& x);
  // The same beside what is computed until wait(); x belongs to it until then.
  void begin_sum_rows(const ops::Tensor& x);
  void wait();

  // All of x, FP32, becomes its sum over the ranks.
  void sum(const ops::Tensor& x);
  void max(const ops::Tensor& bits) override;

 private:
  parallel::Bounds bounds_of(const ops::Tensor& x);
  void wait_for(parallel::Comm::Ticket ticket);

  TensorPlace place_;
  parallel::Comm* group_ = nullptr;
  Timeline* timer_ = nullptr;
  Recordings* recordings_ = nullptr;
  std::vector<int64_t> bounds_;
  parallel::Comm::Ticket begun_ = 0;
  bool waits_ = false;
};

}  // namespace qstep::trainer
