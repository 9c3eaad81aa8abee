// What is said where the memory of a GPU does not suffice: for the tensors of training, of an
// evaluation or of generation, or for what the operations take beside them at their first call.
#include "trainer/step/out_of_memory.h"

#include <gtest/gtest.h>

#include "tests/support/wrapped_ops.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/saved_trainer.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/generator.h"
#include "trainer/step/machine_memory.h"

namespace qstep::trainer::testing {
namespace {

// A GPU that has so much for every request, and room for scratch memory or none.
class SmallOps final : public test::WrappedOps {
 public:
  std::string_view name() const override { return "small"; }
  ops::Buffer allocate(int64_t bytes) override {
    asked_ = bytes;
    if (bytes > largest_) full();
    return inner_->allocate(bytes);
  }
  void leave_for_a_request(int64_t bytes) { largest_ = bytes; }
  // The last request.
  int64_t asked() const { return asked_; }
  // Attention wants scratch memory from now on, and there is none.
  void leave_no_scratch() { has_scratch_ = false; }

 private:
  void run(std::string_view call, const std::function<void()>& f) override {
    if (!has_scratch_ && call.starts_with("attention")) full();
    f();
  }
  [[noreturn]] static void full() {
    throw ops::Error(ops::ExitCode::kOutOfMemory, "the GPU has no room left");
  }

  int64_t largest_ = int64_t{1} << 40, asked_ = 0;
  bool has_scratch_ = true;
};

// What is said where f() finds no memory.
std::string text_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kOutOfMemory, error.code());
    return error.what();
  }
  ADD_FAILURE() << "there was room for it";
  return "";
}

int count_of(const std::string& text, std::string_view part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}
void expect_in_order(const std::string& text, const std::vector<std::string>& parts) {
  size_t at = 0;
  for (const std::string& part : parts) {
    const size_t next = text.find(part, at);
    ASSERT_NE(std::string::npos, next) << part << " is not in: " << text;
    at = next;
  }
}

Config config() { return recipe_config(load_recipe("bf16"), 1, 2); }

// The largest owners, each once and in their order.
void expect_training_owners(ops::Ops& ops, const std::string& text) {
  const std::vector<MemoryRow> rows = backend_memory(config(), ops);
  expect_in_order(text, {"the GPU has no room left", "this rank's tensors take ", rows[0].owner,
                         rows[1].owner, rows[2].owner, rows[3].owner, "others ", "qstep plan"});
  EXPECT_EQ(1, count_of(text, "tensors take")) << text;
}

TEST(OutOfMemory, OfATrainerThatIsMade) {
  SmallOps ops;
  ops.leave_for_a_request(1 << 10);
  expect_training_owners(ops, text_of([&] { const Trainer trainer(ops, config()); }));
}

TEST(OutOfMemory, OfAStepAndOfAnEvaluationInTraining) {
  SmallOps ops;
  Trainer trainer(ops, config());
  ops.leave_no_scratch();
  FixedBatches batches(learnable_batches(2, 700));
  expect_training_owners(ops, text_of([&] { trainer.step(batches, 1e-3, 1); }));
  expect_training_owners(ops, text_of([&] { trainer.evaluate(batches.next()); }));
}

// A checkpoint, and what its model says on memory that does not suffice.
class OutOfMemoryOfACheckpoint : public ::testing::Test {
 protected:
  OutOfMemoryOfACheckpoint() {
    const auto cpu = ops::make_cpu_ops();
    Trainer trainer(*cpu, config());
    save_trainer(*cpu, trainer, 1, folder_.path());
  }
  LoadedModel load(ops::Ops& ops, Passes passes, int64_t micro_batch = 0) const {
    return LoadedModel(ops, folder_.path(), "", passes, micro_batch);
  }

  TemporaryFolder folder_;
};

TEST_F(OutOfMemoryOfACheckpoint, WhileItIsLoaded) {
  SmallOps ops;
  ops.leave_for_a_request(1 << 10);
  const auto text = [&](Passes passes) { return text_of([&] { load(ops, passes); }); };
  for (const Passes passes : {Passes::kMicroBatches, Passes::kAnySize}) {
    expect_in_order(text(passes), {"the GPU has no room left", "the tensors take ", "weights ",
                                   "weights on their way ", "--device cpu"});
    EXPECT_EQ(0, count_of(text(passes), "train.")) << text(passes);
  }
}

TEST_F(OutOfMemoryOfACheckpoint, OfAnEvaluation) {
  SmallOps ops;
  const LoadedModel loaded = load(ops, Passes::kMicroBatches);
  Evaluator evaluator(ops, loaded);
  ops.leave_no_scratch();
  FixedBatches batches(learnable_batches(1, 800));
  const std::string text = text_of([&] { evaluator.loss(batches.next()); });
  expect_in_order(text, {"the GPU has no room left", "the tensors take ", "--micro-batch"});
  for (const char* const owner : {"weights ", "activations ", "logits "}) {
    EXPECT_EQ(1, count_of(text, owner)) << owner << " in: " << text;
  }
  EXPECT_EQ(0, count_of(text, "qstep plan")) << text;  // which counts training

  const auto evaluator_of = [&](int64_t micro_batch) {
    const LoadedModel model = load(ops, Passes::kMicroBatches, micro_batch);
    const Evaluator made(ops, model);
    return ops.asked();
  };
  const int64_t whole = evaluator_of(0);
  EXPECT_LT(evaluator_of(1), whole);  // what the message says helps
  ops.leave_for_a_request(whole - 1);
  EXPECT_EQ(1, count_of(text_of([&] { const Evaluator none(ops, loaded); }), "--micro-batch"));
}

TEST_F(OutOfMemoryOfACheckpoint, OfGeneration) {
  SmallOps ops;
  const LoadedModel loaded = load(ops, Passes::kAnySize);
  const int64_t vocab = loaded.config().model.vocab_size;
  Generator generator(ops, loaded, kRecipeSeqLen, vocab);
  ops.leave_no_scratch();
  const std::vector<int32_t> prompt{3, 1, 4};
  const std::string text = text_of(
      [&] { generator.generate(prompt, 4, SamplingOptions{}, -1, [](int32_t) { return true; }); });
  expect_in_order(text, {"the GPU has no room left", "the tensors take ", "lower --tokens"});
  for (const char* const owner : {"weights ", "activations ", "key/value cache "}) {
    EXPECT_EQ(1, count_of(text, owner)) << owner << " in: " << text;
  }
  ops.leave_for_a_request(1 << 20);
  EXPECT_EQ(1, count_of(text_of([&] { const Generator none(ops, loaded, 1 << 16, vocab); }),
                        "lower --tokens"));
}

TEST(OutOfMemory, WhatToLowerFollowsFromTheLargestOwners) {
  const ops::Error full(ops::ExitCode::kOutOfMemory, "full");
  const auto text = [&](std::vector<MemoryRow> rows) {
    return std::string(with_owners(full, rows).what());
  };
  const std::string tokens = "train.micro_batch";
  EXPECT_EQ(1, count_of(text({{"activations", 9}, {"weights", 1}}), tokens));
  EXPECT_EQ(0, count_of(text({{"gradients", 9}, {"optimizer state", 8}}), tokens));
  EXPECT_EQ(1, count_of(text({{"gradients", 9}}), "parallel.reduction=rank"));
  EXPECT_EQ(1, count_of(text({{"weights", 9}}), "parallel.tensor"));
  // Once, where both say the same.
  EXPECT_EQ(1, count_of(text({{"activations", 9}, {"logits", 8}}), tokens));
}

TEST(OutOfMemory, TwoModelsAtOnceAreNamed) {
  const auto fill = []() -> int { throw ops::Error(ops::ExitCode::kOutOfMemory, "full"); };
  EXPECT_EQ(5, naming_both([] { return 5; }, "bf16", "nvfp4", "one at a time"));
  EXPECT_EQ("full\n  bf16 and nvfp4 are in memory at once: one at a time",
            text_of([&] { naming_both(fill, "bf16", "nvfp4", "one at a time"); }));
}

TEST(OutOfMemory, OtherErrorsStayAsTheyAre) {
  const auto never = [] { return std::vector<MemoryRow>{{"nobody asks", 1}}; };
  EXPECT_EQ(5, naming_owners([] { return 5; }, never));
  const auto broken = []() -> int { throw ops::Error(ops::ExitCode::kGpu, "broken"); };
  for (const bool both : {false, true}) {
    try {
      both ? naming_both(broken, "a", "b", "c") : naming_owners(broken, never);
      ADD_FAILURE();
    } catch (const ops::Error& error) {
      EXPECT_STREQ("broken", error.what());
      EXPECT_EQ(ops::ExitCode::kGpu, error.code());
    }
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
