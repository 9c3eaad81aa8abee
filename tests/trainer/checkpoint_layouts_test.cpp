// Parameters saved by ranks of one data x tensor layout and read by those of every other.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <map>

#include "tests/support/thread_comm.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/split_testing.h"

namespace qstep::trainer::testing {
namespace {

using parallel::Comm;
using test::run_ranks;

struct Layout {
  int data = 1, tensor = 1;
  OptimizerState state = OptimizerState::kSharded;

  int size() const { return data * tensor; }
  RankOfMany rank(int world_rank) const {
    return {state, data, world_rank / tensor, {tensor, world_rank % tensor}};
  }
  std::string text() const {
    return fmt::format("{}x{}{}", data, tensor,
                       state == OptimizerState::kReplicated ? " replicated" : "");
  }
};

// Replicated ones where that makes a difference: with more than one data-parallel rank.
std::vector<Layout> layouts() {
  return {{1, 1},
          {2, 1},
          {4, 1},
          {1, 2},
          {2, 2},
          {1, 4},
          {2, 1, OptimizerState::kReplicated},
          {2, 2, OptimizerState::kReplicated}};
}

// Another number for every element of every tensor of a checkpoint, exact in FP32.
class Numbers {
 public:
  explicit Numbers(const ModelConfig& model) {
    for (const WeightSpec& spec : weight_list(model)) {
      first_[spec.name] = size_;
      size_ += spec.rows * spec.cols;
    }
    ops::check(3 * size_ < (int64_t{1} << 24), "more elements than FP32 can number");
  }
  float at(int64_t group, const WeightSpec& spec, const Element& e) const {
    const int64_t number = group * size_ + first_.at(spec.name) + e.row * spec.cols + e.col;
    return static_cast<float>(number + 1);
  }

 private:
  std::map<std::string, int64_t> first_;
  int64_t size_ = 0;
};

std::array<ops::Tensor, 3> state_of(const RankParameters& p) {
  return {p.values.master.flat, p.values.adam_m.flat, p.values.adam_v.flat};
}

// Calls f(float of the rank, number that belongs there) for all that the rank owns of the weights.
template <class F>
void for_each_number(const RankParameters& p, const Numbers& numbers, F&& f) {
  p.for_each_element([&](const PlacedWeight& weight, const Element& e, int64_t i) {
    const int64_t owned = p.owned_place(weight, i);
    if (owned < 0) return;
    int64_t group = 0;
    for (const ops::Tensor& x : state_of(p)) {
      f(x.as<float>()[owned], numbers.at(group++, weight.spec, e));
    }
  });
}

void save(const ModelConfig& model, const Layout& layout, const std::string& root) {
  const Numbers numbers(model);
  run_ranks(layout.size(), [&](Comm& comm) {
    const RankParameters p(model, ops::Dtype::kBf16, layout.rank(comm.rank()));
    for_each_number(p, numbers, [](float& x, float number) { x = number; });
    save_checkpoint(comm, root, Contents(3).state(), saved_tensors(p.plan, p.values), 0);
  });
}

void expect_read(const ModelConfig& model, const Layout& layout, const std::string& path) {
  const Numbers numbers(model);
  run_ranks(layout.size(), [&](Comm& comm) {
    const CheckpointReader reader(comm, path);
    const RankParameters p(model, ops::Dtype::kBf16, layout.rank(comm.rank()));
    for (const NamedTensor& tensor : named_tensors(p.plan, p.values)) reader.read(tensor);
    int64_t n_wrong = 0, n_stray = 0;
    for_each_number(p, numbers, [&](float& x, float number) {
      n_wrong += x != number ? 1 : 0;
      x = 0;
    });
    EXPECT_EQ(0, n_wrong) << "rank " << comm.rank();
    // Nothing was read to where no weight is.
    for (const ops::Tensor& x : state_of(p)) {
      for (int64_t i = 0; i < x.size(); ++i) n_stray += x.as<float>()[i] != 0 ? 1 : 0;
    }
    EXPECT_EQ(0, n_stray) << "rank " << comm.rank();
  });
}

class CheckpointLayouts : public ::testing::TestWithParam<SplitCase> {};

TEST_P(CheckpointLayouts, R05_AnyLayoutContinuesFromAnyOther) {
  const ModelConfig& model = GetParam().model;
  for (const Layout& writers : layouts()) {
    const TemporaryFolder root(Storage::kMemory);
    save(model, writers, root.path());
    const std::string path = root / "step-00000003";
    ASSERT_EQ("", verify_checkpoint(path, Verify::kFull));
    for (const Layout& readers : layouts()) {
      SCOPED_TRACE(writers.text() + " read by " + readers.text());
      expect_read(model, readers, path);
    }
  }
}

// Programs that know nothing of layouts read whole tensors.
TEST_P(CheckpointLayouts, HasWholeTensors) {
  const ModelConfig& model = GetParam().model;
  const Numbers numbers(model);
  const TemporaryFolder root(Storage::kMemory);
  save(model, {2, 2}, root.path());
  const CheckpointReader reader(root / "step-00000003");
  EXPECT_EQ(4, inspect_checkpoint(root / "step-00000003", Verify::kFast).ranks);
  for (const WeightSpec& spec : weight_list(model)) {
    std::vector<float> found(static_cast<size_t>(spec.rows * spec.cols));
    reader.read({"adam_m/" + spec.name, ops::view(std::span(found), spec.rows, spec.cols)});
    for (int64_t i = 0; i < spec.rows * spec.cols; ++i) {
      ASSERT_EQ(numbers.at(1, spec, {i / spec.cols, i % spec.cols}), found[static_cast<size_t>(i)])
          << spec.name << " at " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CheckpointLayouts, ::testing::ValuesIn(split_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qstep::trainer::testing
