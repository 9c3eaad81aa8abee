// What the tests of model and step share: small models of every kind, random weights, fixed
// batches, and the comparison with the FP64 reference.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/reference_model.h"
#include "trainer/config/config.h"
#include "trainer/model/parameters.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer::testing {

// The smallest model with every dimension different, so that none can stand in for another.
ModelConfig tiny_model();

struct ModelCase {
  std::string name;
  ModelConfig model;
};
// Every kind of layer in both of its forms, at sizes that are not multiples of anything.
std::vector<ModelCase> model_cases();
inline std::string case_name(const ::testing::TestParamInfo<ModelCase>& test) {
  return test.param.name;
}

// One micro-batch per step of B x T, FP32, nothing clipped.
Config step_config(const ModelConfig& model, int64_t batch, int64_t seq_len);

// Uniform random weights around the initial ones' centre (norms around 1), representable in BF16,
// so that the same weights serve every precision. Padding rows are left alone.
void fill_random(Trainer& trainer, uint64_t seed);

// Without the padding rows of the vocabulary, as the reference has them.
test::Weights read_weights(const ModelConfig& model, ParameterGroup& group);

test::Batch random_batch(const ModelConfig& model, int64_t batch, int64_t seq_len, uint64_t seed);

// Hands out the same batches round and round.
class FixedBatches final : public BatchSource {
 public:
  explicit FixedBatches(std::vector<test::Batch> batches) : batches_(std::move(batches)) {}
  MicroBatch next() override {
    const test::Batch& b = batches_[next_++ % batches_.size()];
    return {b.tokens, b.targets};
  }

 private:
  std::vector<test::Batch> batches_;
  size_t next_ = 0;
};

// All bytes of a group, weights and what lies between them.
std::vector<std::byte> bytes_of(const ParameterGroup& group);

}  // namespace qstep::trainer::testing
