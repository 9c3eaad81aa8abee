// A world for memory behind the fence (fenced_ops.h), over one of the host: as one of GPUs it takes
// no memory of the host, and a collective has done nothing before somebody waits for it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm.h"
#include "tests/support/fenced_ops.h"

namespace qstep::test {

class FencedComm final : public parallel::Comm {
 public:
  explicit FencedComm(std::unique_ptr<parallel::Comm> hosts)
      : FencedComm(std::move(hosts), std::make_shared<Queue>()) {}

  std::string_view name() const override { return "fenced"; }
  std::string_view group() const override { return hosts_->group(); }
  int rank() const override { return hosts_->rank(); }
  int size() const override { return hosts_->size(); }
  Ticket all_reduce(const ops::Tensor& x, parallel::Reduce reduce) override {
    return later(x, [=, this] { return hosts_->all_reduce(x, reduce); });
  }
  Ticket reduce_scatter(const ops::Tensor& x, parallel::Bounds bounds) override {
    return later(x, [=, this, b = copy(bounds)] { return hosts_->reduce_scatter(x, b); });
  }
  Ticket all_gather(const ops::Tensor& x, parallel::Bounds bounds) override {
    return later(x, [=, this, b = copy(bounds)] { return hosts_->all_gather(x, b); });
  }
  Ticket broadcast(const ops::Tensor& x, int root) override {
    return later(x, [=, this] { return hosts_->broadcast(x, root); });
  }
  Ticket all_to_all(const ops::Tensor& out, const ops::Tensor& in) override {
    return later(out, [=, this] { return hosts_->all_to_all(out, in); });
  }
  Ticket send(const ops::Tensor& x, int to) override {
    return later(x, [=, this] { return hosts_->send(x, to); });
  }
  Ticket receive(const ops::Tensor& x, int from) override {
    return later(x, [=, this] { return hosts_->receive(x, from); });
  }
  Ticket barrier() override {
    return later({}, [this] { return hosts_->barrier(); });
  }
  void wait(Ticket ticket) override {
    const FencedOps::Open open;
    while (!queue_->waiting.empty() && queue_->waiting.front().first <= ticket) {
      const std::function<void()> run = std::move(queue_->waiting.front().second);
      queue_->waiting.pop_front();
      run();
    }
  }
  std::unique_ptr<parallel::Comm> split(int color, int key) override {
    return std::unique_ptr<parallel::Comm>(new FencedComm(hosts_->split(color, key), queue_));
  }
  parallel::CommTimes times() const override { return hosts_->times(); }

 private:
  struct Queue {  // of all groups of a world
    Ticket last = 0;
    std::deque<std::pair<Ticket, std::function<void()>>> waiting;
  };
  FencedComm(std::unique_ptr<parallel::Comm> hosts, std::shared_ptr<Queue> queue)
      : hosts_(std::move(hosts)), queue_(std::move(queue)) {}

  static std::vector<int64_t> copy(parallel::Bounds bounds) {
    return {bounds.begin(), bounds.end()};
  }
  Ticket later(const ops::Tensor& x, std::function<Ticket()> collective) {
    ops::check(x.size() == 0 || FencedOps::is_own(x) || FencedOps::in_operation(),
               "a collective of GPUs on memory of the host");
    queue_->waiting.emplace_back(
        ++queue_->last, [this, collective = std::move(collective)] { hosts_->wait(collective()); });
    return queue_->last;
  }

  std::unique_ptr<parallel::Comm> hosts_;
  std::shared_ptr<Queue> queue_;
};

}  // namespace qstep::test
