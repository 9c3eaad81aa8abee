// What an observer hears of collectives that go well, in a world of any size.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <string>

#include "parallel/collective_observer.h"
#include "tests/parallel/rank_data.h"
#include "tests/parallel/world_main.h"

namespace qstep::parallel {
namespace {

// Writes everything down. `sequence` of the world, here called "world", is counted from what it
// hears first.
class Recorder final : public CollectiveObserver {
 public:
  void entered(const CollectiveRecord& record) override { note('+', record); }
  void left(const CollectiveRecord& record) override { note('-', record); }
  std::optional<Failure> failure() override {
    ++n_asked_;
    return std::nullopt;
  }

  std::vector<std::string> heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  // Of all that was heard.
  std::set<std::string> groups() {
    const std::lock_guard lock(mutex_);
    return groups_;
  }
  int n_asked() const { return n_asked_; }

 private:
  void note(char what, const CollectiveRecord& r) {
    const std::lock_guard lock(mutex_);
    groups_.emplace(r.group);
    const bool whole = r.group == world().group();
    if (first_ == 0 && whole) first_ = r.sequence;
    const uint64_t sequence = whole && r.peer < 0 ? r.sequence - first_ : r.sequence;
    // Splits of the world that other tests made are part of the name.
    const std::string_view color = r.group.substr(std::min(r.group.find(':'), r.group.size()));
    std::string line = fmt::format("{}world{} {} {}", what, color, sequence, r.operation);
    // Each world has its own way to split.
    if (r.operation != "split") line += fmt::format(" {} {}", r.bytes, ops::name(r.dtype));
    heard_.push_back(line);
  }

  std::mutex mutex_;
  std::vector<std::string> heard_;
  std::set<std::string> groups_;
  uint64_t first_ = 0;
  std::atomic<int> n_asked_{0};
};

TEST(Observer, HearsOfEveryCollectiveInOrder) {
  Comm& comm = world();
  if (comm.size() == 1 && comm.name() == "single") return;  // nothing to tell
  comm.wait(comm.barrier());
  Recorder recorder;
  comm.observe(&recorder);
  std::vector<float> x(static_cast<size_t>(comm.size()) * 2);
  std::vector<int64_t> bounds;
  for (int64_t r = 0; r <= comm.size(); ++r) bounds.push_back(2 * r);
  comm.all_gather(ops::view(std::span(x)), bounds);
  comm.reduce_scatter(ops::view(std::span(x)), bounds);
  const std::unique_ptr<Comm> group = comm.split(3, 0);
  int32_t one = 1;
  group->all_reduce(ops::view(std::span(&one, 1)), Reduce::kSum);
  comm.wait(comm.barrier());
  comm.observe(nullptr);
  comm.wait(comm.barrier());

  const int64_t n = comm.size();
  const auto twice = [](const std::string& text) {
    return std::vector<std::string>{"+" + text, "-" + text};
  };
  std::vector<std::string> expected;
  for (const std::string& text :
       {fmt::format("world 0 all_gather {} fp32", 8 * n),
        fmt::format("world 1 reduce_scatter {} fp32", 8 * n), std::string("world 2 split"),
        std::string("world:3 1 all_reduce 4 int32"), std::string("world 3 barrier 0 fp32")}) {
    for (const std::string& line : twice(text)) expected.push_back(line);
  }
  EXPECT_EQ(expected, recorder.heard());
  const std::set<std::string> groups{std::string(comm.group()), std::string(group->group())};
  EXPECT_EQ(2u, groups.size());
  EXPECT_EQ(groups, recorder.groups());
  EXPECT_EQ(n > 1, recorder.n_asked() > 0);
}

TEST(Observer, SendsAndReceivesHaveNumbersOfTheirOwn) {
  Comm& comm = world();
  if (comm.size() == 1) return;
  Recorder recorder;
  comm.observe(&recorder);
  const std::unique_ptr<Comm> group = comm.split(0, 0);
  float x = 1;
  const Tensor view = ops::view(std::span(&x, 1));
  if (group->rank() == 0) group->send(view, 1);
  if (group->rank() == 1) group->receive(view, 0);
  group->wait(group->barrier());
  comm.observe(nullptr);
  std::vector<std::string> expected{"+world 0 split", "-world 0 split"};
  if (group->rank() < 2) {
    const std::string_view what = group->rank() == 0 ? "send" : "receive";
    for (const char sign : {'+', '-'}) {
      expected.push_back(fmt::format("{}world:0 1 {} 4 fp32", sign, what));
    }
  }
  for (const char sign : {'+', '-'})
    expected.push_back(fmt::format("{}world:0 1 barrier 0 fp32", sign));
  EXPECT_EQ(expected, recorder.heard());
}

}  // namespace
}  // namespace qstep::parallel
