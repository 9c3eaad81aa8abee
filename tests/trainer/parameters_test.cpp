// What a rank of a data x tensor layout holds of the parameters, starts from and saves.
#include "trainer/model/parameters.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tests/trainer/split_testing.h"
#include "trainer/checkpoint/checkpoint_rank_file.h"

namespace qstep::trainer::testing {
namespace {

using ops::Dtype;
using ops::Tensor;

constexpr uint64_t kSeed = 90;

class ParametersOf : public ::testing::TestWithParam<SplitCase> {};

INSTANTIATE_TEST_SUITE_P(Models, ParametersOf, ::testing::ValuesIn(split_cases()),
                         [](const auto& test) { return test.param.name; });

// ---- initialisation -------------------------------------------------------------------

RankParameters initialised(const ModelConfig& model, Dtype dtype, const RankOfMany& rank) {
  RankParameters p(model, dtype, rank);
  init_parameters(*p.ops, p.plan, p.values, p.scratch, kSeed);
  return p;
}

bool same_element(const Tensor& a, int64_t i, const Tensor& b, int64_t j) {
  const auto size = static_cast<size_t>(ops::size_bytes(a.dtype));
  const auto at = [&](const Tensor& x, int64_t k) {
    return static_cast<const char*>(x.data) + static_cast<size_t>(k) * size;
  };
  return a.dtype == b.dtype && std::memcmp(at(a, i), at(b, j), size) == 0;
}

// Elements of `all` outside the weights that are not zero.
int64_t n_stray(const RankParameters& p, const Tensor& all) {
  std::vector<bool> inside(static_cast<size_t>(all.size()));
  p.for_each_element(
      [&](const PlacedWeight&, Element, int64_t i) { inside[static_cast<size_t>(i)] = true; });
  int64_t n = 0;
  const std::vector<char> zero(static_cast<size_t>(ops::size_bytes(all.dtype)));
  for (int64_t i = 0; i < all.size(); ++i) {
    const char* const x = static_cast<const char*>(all.data) + static_cast<size_t>(i) * zero.size();
    if (!inside[static_cast<size_t>(i)] && std::memcmp(x, zero.data(), zero.size()) != 0) ++n;
  }
  return n;
}

// Every rank begins with the bits that one rank would have there, in both types.
TEST_P(ParametersOf, PartsBeginAsTheWholeModel) {
  const ModelConfig& model = GetParam().model;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    const RankParameters alone = initialised(model, dtype, {});
    std::map<std::string, int64_t> first;  // of weights in the flat arrays of the whole model
    for (const PlacedWeight& weight : alone.plan.weights) first[weight.spec.name] = weight.first;
    for (const int t : tensor_sizes(model)) {
      for (const int n_data : {1, 2}) {
        for (const RankOfMany& rank : all_ranks(OptimizerState::kSharded, n_data, t)) {
          SCOPED_TRACE(fmt::format("data {} of {}, tensor {} of {}", rank.data, n_data,
                                   rank.tensor.rank, t));
          const RankParameters p = initialised(model, dtype, rank);
          int64_t n_owned = 0;
          p.for_each_element([&](const PlacedWeight& weight, Element e, int64_t i) {
            const int64_t expected = first.at(weight.spec.name) + e.row * weight.spec.cols + e.col;
            ASSERT_TRUE(same_element(alone.values.weight.flat, expected, p.values.weight.flat, i))
                << weight.spec.name << " row " << e.row << " column " << e.col;
            const int64_t owned = p.owned_place(weight, i);
            if (owned < 0) return;
            ++n_owned;
            ASSERT_TRUE(
                same_element(alone.values.master.flat, expected, p.values.master.flat, owned))
                << weight.spec.name << " row " << e.row << " column " << e.col;
          });
          EXPECT_GT(n_owned, 0);
          EXPECT_EQ(0, n_stray(p, p.values.weight.flat));
          for (int64_t i = 0; i < p.scratch.flat.size(); ++i) {
            ASSERT_EQ(0.0f, p.scratch.flat.as<float>()[i]);
          }
        }
      }
    }
  }
}

TEST_P(ParametersOf, ViewsHaveTheShapesOfTheParts) {
  const ModelConfig& model = GetParam().model;
  for (const int t : tensor_sizes(model)) {
    for (const OptimizerState state : {OptimizerState::kSharded, OptimizerState::kReplicated}) {
      RankParameters p(model, Dtype::kF32, {state, 2, 1, {t, 0}});
      auto placed = p.plan.weights.begin();
      for_each_weight(model, p.values.weight.views, [&](const WeightSpec& spec, Tensor& view) {
        const LocalShape local = local_shape(spec, t);
        EXPECT_EQ(local.rows, view.rows) << spec.name;
        EXPECT_EQ(local.cols, view.cols) << spec.name;
        EXPECT_EQ(p.values.weight.flat.col_range(placed->first, 1).data, view.data) << spec.name;
        ++placed;
      });
      const bool replicated = state == OptimizerState::kReplicated;
      EXPECT_EQ(replicated, p.values.master.views.wte.data != nullptr);
      EXPECT_EQ(replicated, p.values.master.flat.data == p.values.weight.flat.data);
    }
  }
}

// ---- checkpoint tensors ---------------------------------------------------------------

using SlicesByName = std::map<std::string, std::vector<Slice>>;

void add_to(SlicesByName& slices, const std::vector<NamedTensor>& tensors, int rank) {
  for (const NamedTensor& named : own_slices(tensors, rank)) {
    slices[named.name].push_back(*named.slice);
  }
}

void expect_all_once(const SlicesByName& slices, const ModelConfig& model) {
  EXPECT_EQ(3 * weight_list(model).size(), slices.size());
  for (const WeightSpec& spec : weight_list(model)) {
    for (const std::string prefix : {"master/", "adam_m/", "adam_v/"}) {
      const auto found = slices.find(prefix + spec.name);
      ASSERT_NE(slices.end(), found) << prefix << spec.name;
      const auto problem = cover_problem(found->second, spec.rows, spec.cols);
      EXPECT_FALSE(problem.has_value()) << found->first << " row " << problem->row << " column "
                                        << problem->col << (problem->twice ? " twice" : " missing");
    }
  }
}

TEST_P(ParametersOf, AllRanksTogetherSaveEveryElementOnce) {
  const ModelConfig& model = GetParam().model;
  for (const OptimizerState state : {OptimizerState::kSharded, OptimizerState::kReplicated}) {
    for (const int t : tensor_sizes(model)) {
      for (const int n_data : {1, 2, 3}) {
        SCOPED_TRACE(
            fmt::format("state {}, data {}, tensor {}", static_cast<int>(state), n_data, t));
        SlicesByName slices;
        for (const RankOfMany& rank : all_ranks(state, n_data, t)) {
          const RankParameters p(model, Dtype::kBf16, rank);
          add_to(slices, saved_tensors(p.plan, p.values), rank.world_rank());
        }
        expect_all_once(slices, model);
      }
    }
  }
}

// What a rank reads: all that it owns, so that the ranks which share a tensor rank have its part
// once.
TEST_P(ParametersOf, NamedTensorsAreWhatARankOwns) {
  const ModelConfig& model = GetParam().model;
  for (const int t : tensor_sizes(model)) {
    for (int tensor_rank = 0; tensor_rank < t; ++tensor_rank) {
      std::map<std::string, int64_t> held;
      for (int data = 0; data < 2; ++data) {
        const RankParameters p(model, Dtype::kBf16,
                               {OptimizerState::kSharded, 2, data, {t, tensor_rank}});
        for (const NamedTensor& named : named_tensors(p.plan, p.values)) {
          ASSERT_TRUE(named.slice && named.slice->valid()) << named.name;
          EXPECT_EQ(named.slice->count, named.tensor.size());
          EXPECT_TRUE(named.tensor.contiguous());
          held[named.name] += named.slice->count;
        }
      }
      for (const WeightSpec& spec : weight_list(model)) {
        const LocalShape local = local_shape(spec, t);
        EXPECT_EQ(local.rows * local.cols, held["adam_v/" + spec.name]) << spec.name;
      }
    }
  }
}

TEST_P(ParametersOf, WholeModelHasWholeTensors) {
  const ModelConfig& model = GetParam().model;
  for (const RankOfMany& rank :
       {RankOfMany{}, RankOfMany{OptimizerState::kReplicated, 2, 1, {1, 0}}}) {
    const RankParameters p(model, Dtype::kBf16, rank);
    const std::vector<NamedTensor> all = named_tensors(p.plan, p.values);
    const std::vector<WeightSpec> list = weight_list(model);
    ASSERT_EQ(3 * list.size(), all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      const WeightSpec& spec = list[i % list.size()];
      EXPECT_FALSE(all[i].slice.has_value());
      EXPECT_EQ(spec.rows, all[i].tensor.rows) << all[i].name;
      EXPECT_EQ(spec.cols, all[i].tensor.cols) << all[i].name;
    }
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
