// The world of one rank: every collective is the tensor itself.
#include <cstring>

#include "parallel/comm.h"

namespace qstep::parallel {

namespace {

class Single final : public Comm {
 public:
  std::string_view name() const override { return "single"; }
  std::string_view group() const override { return kHostsGroup; }
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Ticket all_reduce(const ops::Tensor& x, Reduce) override { return contiguous(x); }
  Ticket reduce_scatter(const ops::Tensor& x, Bounds bounds) override { return whole(x, bounds); }
  Ticket all_gather(const ops::Tensor& x, Bounds bounds) override { return whole(x, bounds); }
  Ticket broadcast(const ops::Tensor& x, int root) override {
    ops::check_equal(0, root, "broadcast: root of a single-process world");
    return contiguous(x);
  }
  Ticket all_to_all(const ops::Tensor& out, const ops::Tensor& in) override {
    contiguous(out), contiguous(in);
    ops::check_equal(in.bytes(), out.bytes(), "all_to_all: bytes of the result");
    if (in.bytes() > 0) std::memmove(out.data, in.data, static_cast<size_t>(in.bytes()));
    return 0;
  }
  Ticket send(const ops::Tensor&, int to) override { return nobody(to); }
  Ticket receive(const ops::Tensor&, int from) override { return nobody(from); }
  Ticket barrier() override { return 0; }
  void wait(Ticket) override {}
  std::unique_ptr<Comm> split(int, int) override { return make_single(); }
  CommTimes times() const override { return {}; }

 private:
  static Ticket contiguous(const ops::Tensor& x) {
    ops::check(x.contiguous(), "a collective needs a contiguous tensor");
    return 0;
  }
  static Ticket whole(const ops::Tensor& x, Bounds bounds) {
    ops::check(bounds.size() == 2 && bounds[0] == 0 && bounds[1] == x.size(),
               "a collective of one rank has one part");
    return contiguous(x);
  }
  static Ticket nobody(int rank) {
    ops::check(false, fmt::format("a single-process world has no rank {} to talk to", rank));
    return 0;
  }
};

}  // namespace

std::unique_ptr<Comm> make_single() { return std::make_unique<Single>(); }

}  // namespace qstep::parallel
