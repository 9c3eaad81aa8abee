#include "parallel/comm.h"

namespace qstep::parallel {

namespace {

// Of one rank, sum, maximum and broadcast are the tensor itself.
class Single final : public Comm {
 public:
  std::string_view name() const override { return "single"; }
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(const ops::Tensor& x, Reduce) override { check_reducible(x); }
  void broadcast(const ops::Tensor& x, int root) override {
    check_reducible(x);
    ops::check_equal(0, root, "broadcast: root of a single-process world");
  }
  void barrier() override {}

 private:
  static void check_reducible(const ops::Tensor& x) {
    ops::check(x.contiguous(), "a collective needs a contiguous tensor");
  }
};

}  // namespace

std::unique_ptr<Comm> make_single() { return std::make_unique<Single>(); }

}  // namespace qstep::parallel
