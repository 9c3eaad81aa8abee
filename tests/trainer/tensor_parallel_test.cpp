// Layers that the ranks of a tensor group share: the gradients of the whole model, the same codes
// out of every quantizer, the same bits at any data-parallel size.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <span>

#include "tests/support/compare.h"
#include "tests/support/test_name.h"
#include "tests/support/thread_comm.h"
#include "tests/trainer/gradient_bounds.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/split_testing.h"
#include "trainer/run/ledger.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer::testing {
namespace {

constexpr double kLr = 0.01;

// ---- gradients against FP64 -----------------------------------------------------------------

struct GradientCase {
  SplitCase model;
  int tensor = 1;
  std::string recipe;
};

std::vector<GradientCase> gradient_cases() {
  std::vector<GradientCase> cases;
  for (const SplitCase& model : split_cases()) {
    for (const int tensor : tensor_sizes(model.model)) {
      for (const char* recipe : {"fp32", "bf16"}) cases.push_back({model, tensor, recipe});
    }
  }
  return cases;
}

template <class M>
auto& at(M& matrix, const Element& e) {
  return matrix.v[static_cast<size_t>(e.row * matrix.cols + e.col)];
}

class TensorGradient : public ::testing::TestWithParam<GradientCase> {};

TEST_P(TensorGradient, IsThatOfTheWholeModel) {
  constexpr int64_t B = 2, T = 6;  // 12 rows, for groups of 2, 3 and 4
  const GradientCase& c = GetParam();
  const ModelConfig& model = c.model.model;
  const double store = c.recipe == "fp32" ? test::kF32Roundoff : test::kBf16Roundoff;
  Config config = step_config(model, B, T);
  set_recipe(config, c.recipe);

  const auto ops = ops::make_cpu_ops();
  Trainer whole(*ops, config);
  fill_random(whole, 5);
  const test::Weights weights = read_weights(model, whole.parameters().master);
  const test::Batch batch = random_batch(model, B, T, 6);
  const GradientBounds bounds = gradient_bounds(model, weights, batch, store);

  test::Weights found = read_weights(model, whole.gradients());  // zeros of the right shapes
  std::vector<StepResult> steps(static_cast<size_t>(c.tensor));
  std::mutex mutex;
  config.parallel.tensor = c.tensor;
  test::run_ranks(c.tensor, [&](parallel::Comm& world) {
    omp_set_num_threads(1);
    const auto own_ops = ops::make_cpu_ops();
    Trainer trainer(*own_ops, config, world);
    const auto used = [&](const WeightSpec& spec, Element e) { return e.row < spec.used_rows; };
    float* const master = trainer.parameters().master.flat.as<float>();
    for_each_element(trainer.shards(), [&](const PlacedWeight& w, Element e, int64_t i) {
      if (used(w.spec, e)) master[i] = static_cast<float>(at(weights.at(w.spec.name), e));
    });
    trainer.refresh_weights();
    FixedBatches batches({batch});
    steps[static_cast<size_t>(world.rank())] = trainer.step(batches, 0.0, 1);
    const float* const gradient = trainer.gradients().flat.as<float>();
    const std::lock_guard lock(mutex);
    for_each_element(trainer.shards(), [&](const PlacedWeight& w, Element e, int64_t i) {
      if (!used(w.spec, e)) return;
      double& value = at(found.at(w.spec.name), e);
      // What all ranks have, all have alike.
      const bool first = w.spec.split != TensorSplit::kNone || value == 0;
      ASSERT_TRUE(first || value == static_cast<double>(gradient[i])) << w.spec.name;
      value = static_cast<double>(gradient[i]);
    });
  });
  for (const StepResult& step : steps) {
    EXPECT_EQ(steps[0].loss, step.loss);
    EXPECT_EQ(steps[0].grad_norm, step.grad_norm);
  }
  expect_within(bounds, steps[0].loss, steps[0].grad_norm, found);
}

INSTANTIATE_TEST_SUITE_P(Models, TensorGradient, ::testing::ValuesIn(gradient_cases()),
                         [](const auto& test) {
                           return fmt::format("{}_{}ranks_{}", test.param.model.name,
                                              test.param.tensor, test.param.recipe);
                         });

// ---- head -----------------------------------------------------------------------------------

// In chunks of rows, the last one shorter: the gradients above come from one chunk.
TEST(SharedHead, ChunksMakeTheWhole) {
  constexpr int64_t N = 22, C = 20;
  ModelConfig model = tiny_model();
  model.vocab_size = 200;  // the second rank's half ends in padding
  const int64_t columns = model.padded_vocab() / 2;
  std::vector<float> weight(static_cast<size_t>(2 * columns * C)), y(static_cast<size_t>(N * C));
  std::vector<int32_t> targets(static_cast<size_t>(N));
  test::Random random(111);
  for (float& w : weight) w = static_cast<float>(random.uniform(-1, 1));
  for (float& v : y) v = static_cast<float>(random.uniform(-1, 1));
  for (int32_t& t : targets) t = static_cast<int32_t>(random.integer(0, model.vocab_size - 1));

  struct Result {
    std::vector<float> loss, evaluated, dy, dw;
  };
  const auto run = [&](int n_ranks, int64_t chunk_rows) {
    Result r{std::vector<float>(N), std::vector<float>(N), std::vector<float>(y.size()),
             std::vector<float>(weight.size())};
    std::mutex mutex;
    test::run_ranks(n_ranks, [&](parallel::Comm& world) {
      omp_set_num_threads(1);
      const auto ops = ops::make_cpu_ops();
      Timeline timer;
      timer.start();
      Recordings nothing(*ops, timer, false);
      TensorParallel group(world, timer, nothing);
      const int64_t own_columns = 2 * columns / n_ranks;
      std::vector<float> logits(static_cast<size_t>(chunk_rows * own_columns));
      std::vector<float> parts(static_cast<size_t>(3 * n_ranks * chunk_rows)), lse(chunk_rows);
      std::vector<float> own_y = y, dy(y.size()), loss(N), evaluated(N);
      // Only own rows of y count.
      for (int64_t i = 0; i < N * C; ++i) {
        if (i / C / (N / n_ranks) != world.rank()) own_y[static_cast<size_t>(i)] = NAN;
      }
      const auto first = static_cast<size_t>(world.rank() * own_columns * C);
      const auto own = [&](std::vector<float>& w) {
        return ops::view(std::span(w).subspan(first, static_cast<size_t>(own_columns * C)),
                         own_columns, C);
      };
      const auto row = [](auto& x) {
        return ops::view(std::span(x), 1, static_cast<int64_t>(x.size()));
      };
      const ops::Tensor all_targets = ops::matrix(targets.data(), ops::Dtype::kI32, 1, N);
      Head head(model, own(weight),
                {ops::view(std::span(logits), chunk_rows, own_columns), row(parts), row(lse)},
                group);
      head.forward_backward(*ops, row(loss), ops::view(std::span(dy), N, C), own(r.dw),
                            ops::view(std::span(own_y), N, C), all_targets, 0.5f,
                            ops::Accumulate::kNo, timer);
      head.forward(*ops, row(evaluated), ops::view(std::span(own_y), N, C), all_targets);
      const std::lock_guard lock(mutex);
      const ops::Tensor rows = group.own_rows(ops::view(std::span(dy), N, C));
      std::copy_n(rows.as<float>(), rows.size(), r.dy.begin() + world.rank() * (N / n_ranks) * C);
      r.loss = loss;
      r.evaluated = evaluated;
    });
    EXPECT_EQ(r.loss, r.evaluated) << "forward alone gives another loss";
    return r;
  };
  // Equal up to the order of at most 256 + 22 terms of size one.
  constexpr float kBound = 300 * 0x1p-24f * 4;
  const auto expect_near = [](const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], kBound) << i;
  };
  const Result whole = run(1, N);
  for (const int64_t rows : {1, 5, 16, 22}) {
    SCOPED_TRACE(rows);
    const Result shared = run(2, rows);
    expect_near(whole.loss, shared.loss);
    expect_near(whole.dy, shared.dy);
    expect_near(whole.dw, shared.dw);
  }
}

// ---- runs -----------------------------------------------------------------------------------

// Every recipe's blocks lie inside the share of each of four ranks.
ModelConfig shared_model() {
  ModelConfig m = recipe_model();
  m.n_heads = 8;
  m.n_kv_heads = 4;
  m.head_dim = 32;
  m.ffn_width = 256;
  m.qk_norm = true;
  return m;
}

Config shared_config(const std::string& recipe, int64_t tensor, int64_t n_micros, int64_t n_steps) {
  Config c = recipe_config(load_recipe(recipe), n_micros, n_steps);
  c.model = shared_model();
  c.parallel.tensor = tensor;
  return c;
}

struct Outcome {
  std::vector<float> losses, norms;
  float evaluated = 0;
  // By tensor rank, put together from the data-parallel shards: flat arrays.
  std::vector<std::vector<float>> master, adam_m;
  std::vector<float> precision_state;
  std::vector<LedgerEntry> ledger;  // of the first step
  std::vector<Bucket> buckets;
};

void put(std::vector<float>& whole, const ShardPlan& plan, const ops::Tensor& owned) {
  whole.resize(static_cast<size_t>(plan.total));
  for (const OwnedRun& run : plan.owned) {
    std::copy_n(owned.as<float>() + run.offset, run.size, whole.begin() + run.first);
  }
}

// noise_seed: 0: none.
Outcome train(const Config& config, int n_data, int64_t n_steps, double lr = kLr,
              uint64_t noise_seed = 0) {
  const auto tensor = static_cast<int>(config.parallel.tensor);
  const int64_t G = config.train.micros_per_step(), share = G / n_data;
  const std::vector<test::Batch> all = learnable_batches(G * n_steps, 900);
  Outcome run;
  run.master.resize(static_cast<size_t>(tensor));
  run.adam_m.resize(static_cast<size_t>(tensor));
  std::mutex mutex;
  test::run_ranks(n_data * tensor, [&](parallel::Comm& world) {
    omp_set_num_threads(1);
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config, world);
    if (noise_seed != 0) {
      disturb(trainer, test::roundoff(trainer.config().compute_dtype()), noise_seed);
    }
    const parallel::Mesh& mesh = trainer.groups().mesh();
    std::vector<test::Batch> mine;
    for (int64_t step = 0; step < n_steps; ++step) {
      const auto first = all.begin() + step * G + mesh.data_rank(world.rank()) * share;
      mine.insert(mine.end(), first, first + share);
    }
    FixedBatches batches(std::move(mine));
    NumericLedger ledger(plan_precision(config));
    for (int64_t step = 1; step <= n_steps; ++step) {
      ledger.begin_step(step);
      trainer.set_ledger(step == 1 ? &ledger : nullptr);
      const StepResult result = trainer.step(batches, lr, step);
      EXPECT_FALSE(result.skipped);
      if (step == 1) ledger.join(trainer.groups());
      if (world.rank() != 0) continue;
      if (step == 1) run.ledger = ledger.entries();
      run.losses.push_back(result.loss);
      run.norms.push_back(result.grad_norm);
    }
    trainer.refresh_weights();
    const float evaluated = trainer.evaluate({all[0].tokens, all[0].targets});
    const std::lock_guard lock(mutex);
    const auto t = static_cast<size_t>(mesh.tensor_rank(world.rank()));
    put(run.master[t], trainer.shards(), trainer.parameters().master.flat);
    put(run.adam_m[t], trainer.shards(), trainer.parameters().adam_m.flat);
    std::vector<float> state;
    for (const NamedTensor& named : trainer.precision_state()) {
      const float* const x = named.tensor.as<float>();
      state.insert(state.end(), x, x + named.tensor.size());
    }
    EXPECT_TRUE(run.precision_state.empty() || run.precision_state == state) << "on every rank";
    EXPECT_TRUE(run.evaluated == 0 || run.evaluated == evaluated) << "on every rank";
    run.precision_state = state;
    run.evaluated = evaluated;
    run.buckets = trainer.shards().buckets;
  });
  return run;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}

std::string recipe_name(const ::testing::TestParamInfo<std::string>& test) {
  return test::test_name(test.param);
}

class SharedLayers : public ::testing::TestWithParam<std::string> {};

TEST_P(SharedLayers, GiveTheSameBitsAtAnyDataParallelSize) {
  constexpr int64_t kSteps = 3;
  Config config = shared_config(GetParam(), 2, 4, kSteps);
  config.optimizer.clip_norm = 0.5;  // acts: the norm enters the weights
  const Outcome alone = train(config, 1, kSteps);
  ASSERT_GT(alone.norms.front(), 0.5f);
  for (const OptimizerState state : {OptimizerState::kSharded, OptimizerState::kReplicated}) {
    config.parallel.optimizer = state;
    for (const int n_data : {2, 4}) {
      SCOPED_TRACE(fmt::format("{} data-parallel ranks", n_data));
      const Outcome found = train(config, n_data, kSteps);
      EXPECT_EQ(alone.losses, found.losses);
      EXPECT_EQ(alone.norms, found.norms);
      EXPECT_EQ(alone.evaluated, found.evaluated);
      EXPECT_TRUE(same_bits(alone.precision_state, found.precision_state));
      for (size_t t = 0; t < alone.master.size(); ++t) {
        EXPECT_TRUE(same_bits(alone.master[t], found.master[t]));
        EXPECT_TRUE(same_bits(alone.adam_m[t], found.adam_m[t]));
      }
    }
  }
  // Norms, QK-norms and the like: one rank's are the other's.
  for (const Bucket& b : alone.buckets) {
    for (int64_t i = b.first + b.split_size; i < b.first + b.size; ++i) {
      const auto at = static_cast<size_t>(i);
      ASSERT_EQ(alone.master[0][at], alone.master[1][at]) << i;
    }
  }
}

class SharedQuantizers : public ::testing::TestWithParam<std::string> {};

// What a quantizer does depends on the logical tensor alone. In the first step the weights are the
// same, and so is the first layer's input (one rank has a token's row, the others add zeros to it).
TEST_P(SharedQuantizers, DoInTheFirstForwardWhatTheyDoAlone) {
  const Outcome whole = train(shared_config(GetParam(), 1, 2, 1), 1, 1);
  for (const int64_t tensor : {2, 4}) {
    for (const int n_data : {1, 2}) {
      SCOPED_TRACE(fmt::format("{} ranks share a layer, {} data-parallel", tensor, n_data));
      const Outcome shared = train(shared_config(GetParam(), tensor, 2, 1), n_data, 1);
      ASSERT_EQ(whole.ledger.size(), shared.ledger.size());
      for (size_t i = 0; i < whole.ledger.size(); ++i) {
        const LedgerEntry &a = whole.ledger[i], &b = shared.ledger[i];
        SCOPED_TRACE(fmt::format("{} operand {}", module_name(a.module), static_cast<int>(a.slot)));
        EXPECT_EQ(a.micro_batches, b.micro_batches);
        EXPECT_EQ(a.stats.elements, b.stats.elements);
        EXPECT_EQ(a.stats.blocks, b.stats.blocks);
        using precision::OperandSlot;
        const bool weight = a.slot == OperandSlot::kWFprop || a.slot == OperandSlot::kWDgrad;
        const bool first_input =
            a.module == 0 && (a.slot == OperandSlot::kXFprop || a.slot == OperandSlot::kXWgrad);
        if (!weight && !first_input) continue;
        EXPECT_EQ(a.stats.amax, b.stats.amax);
        EXPECT_EQ(a.stats.scale, b.stats.scale);
        EXPECT_EQ(a.stats.underflowed, b.stats.underflowed);
        EXPECT_EQ(a.stats.saturated, b.stats.saturated);
        EXPECT_EQ(a.stats.zero_scales, b.stats.zero_scales);
        // The same terms in another order, in FP64.
        EXPECT_NEAR(a.stats.squared_error, b.stats.squared_error, 1e-12 * a.stats.squared_error);
      }
    }
  }
}

// How far apart the paths of two runs are that differ by rounding is a property of model, data and
// recipe, and the whole model can measure it: it runs again from weights that are off by a roundoff
// of the compute type, at random. The largest change of its losses, times a factor, bounds that of
// a shared model, which rounds partial sums once more and forms sums in another order.
TEST_P(SharedLayers, LearnAsTheWholeModelDoes) {
  constexpr int64_t kSteps = 100;
  constexpr float kFactor = 4;
  constexpr double kGentleLr = 0.001;  // paths do not part by themselves
  const auto learn = [&](int64_t tensor, uint64_t seed) {
    return train(shared_config(GetParam(), tensor, 1, kSteps), 1, kSteps, kGentleLr, seed).losses;
  };
  const auto largest_difference = [](const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 0;
    for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
    return largest;
  };
  const std::vector<float> whole = learn(1, 0);
  ASSERT_LT(whole.back(), 1.0f) << "it learns, from ln 61 = 4.1";
  float bound = 0;
  for (const uint64_t seed : {71, 72}) {
    bound = std::max(bound, kFactor * largest_difference(whole, learn(1, seed)));
  }
  EXPECT_LT(bound, 0.25f) << "a bound that says nothing";
  for (const int64_t tensor : {2, 4}) {
    const float difference = largest_difference(whole, learn(tensor, 0));
    EXPECT_LT(difference, bound) << tensor;
    RecordProperty(fmt::format("error_over_bound_{}", tensor),
                   fmt::format("{:.3f}", difference / bound));
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, SharedLayers,
                         ::testing::Values("fp32", "bf16", "fp8-delayed", "mxfp8", "nvfp4"),
                         recipe_name);
INSTANTIATE_TEST_SUITE_P(Recipes, SharedQuantizers,
                         ::testing::Values("fp8-delayed", "fp8-current", "mxfp8", "nvfp4",
                                           "nvfp4-4over6"),
                         recipe_name);

// One rank's poison: no rank moves, and all name the layer.
TEST(TensorParallel, NonFiniteStepIsSkippedOnAllRanks) {
  const Config config = shared_config("nvfp4", 2, 2, 1);
  test::run_ranks(2, [&](parallel::Comm& world) {
    omp_set_num_threads(1);
    FixedBatches batches(learnable_batches(2, 820));
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config, world);
    if (world.rank() == 1) {
      trainer.parameters().weight.views.blocks[2].down.as<ops::Bf16>()[3] = ops::Bf16{0x7F80};
    }
    std::vector<float> before, after;
    put(before, trainer.shards(), trainer.parameters().master.flat);
    const StepResult result = trainer.step(batches, kLr, 1);
    put(after, trainer.shards(), trainer.parameters().master.flat);
    EXPECT_TRUE(result.skipped);
    EXPECT_EQ("blocks.2.down w", result.non_finite_input);
    EXPECT_TRUE(same_bits(before, after));
  });
}

}  // namespace
}  // namespace qstep::trainer::testing
