// Memory of training: what the plan says is what is allocated, and a step allocates nothing. The
// test program puts itself between everybody and the C library's malloc; sanitizers do the same, so
// that this file is left out of their builds.
#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "tests/support/test_name.h"
#include "tests/trainer/step_testing.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<int64_t> n_allocations{0}, n_large{0}, largest{0};

constexpr size_t kLarge = 64 << 10;

void count(size_t bytes) {
  if (!counting) return;
  ++n_allocations;
  if (bytes >= kLarge) ++n_large;
  for (int64_t seen = largest; static_cast<int64_t>(bytes) > seen;) {
    if (largest.compare_exchange_weak(seen, static_cast<int64_t>(bytes))) break;
  }
}
}  // namespace

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t n) noexcept {
  count(n);
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t size) noexcept {
  count(n * size);
  return __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) noexcept {
  count(n);
  return __libc_realloc(p, n);
}
void* memalign(size_t alignment, size_t n) noexcept {
  count(n);
  return __libc_memalign(alignment, n);
}
void* aligned_alloc(size_t alignment, size_t n) noexcept { return memalign(alignment, n); }
int posix_memalign(void** p, size_t alignment, size_t n) noexcept {
  *p = memalign(alignment, n);
  return *p == nullptr ? ENOMEM : 0;
}
}

namespace qstep::trainer::testing {
namespace {

class Counter {
 public:
  Counter() {
    n_allocations = n_large = largest = 0;
    counting = true;
  }
  ~Counter() { counting = false; }
};

class Allocation : public ::testing::TestWithParam<std::string> {
 protected:
  Config config() const {
    ModelConfig m;
    m.vocab_size = 1000;
    m.n_layers = 2;
    m.width = 128;
    m.n_heads = 4;
    m.n_kv_heads = 2;
    m.head_dim = 32;
    m.ffn_width = 384;
    m.max_seq_len = 64;
    m.qk_norm = true;
    Config c = step_config(m, 4, 64);
    c.train.global_batch = 12;
    set_recipe(c, GetParam());
    return c;
  }
};

TEST_P(Allocation, PlanIsWhatIsAllocated) {
  int64_t planned = 0;
  for (const MemoryRow& row : training_memory(config())) {
    EXPECT_GT(row.bytes, 0) << row.owner;
    planned += row.bytes;
  }
  const auto ops = ops::make_cpu_ops();
  const Counter counter;
  const Trainer trainer(*ops, config());
  EXPECT_EQ((planned + 4095) / 4096 * 4096, largest);  // whole pages
}

// From the second step on: nothing of 64 KiB or more from anybody, and nothing at all that grows.
// What oneDNN allocates for itself when a primitive runs is small and the same in every step.
TEST_P(Allocation, StepsAllocateNothingAfterTheFirst) {
  const Config c = config();
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, c);
  std::vector<test::Batch> micros;
  for (uint64_t i = 0; i < 3; ++i) micros.push_back(random_batch(c.model, 4, 64, 95 + i));
  FixedBatches batches(micros);
  trainer.step(batches, 1e-3, 1);
  int64_t in_second = 0;
  for (int64_t update = 2; update <= 4; ++update) {
    const Counter counter;
    trainer.step(batches, 1e-3, update);
    EXPECT_EQ(0, n_large) << "step " << update << ", largest " << largest << " bytes";
    if (update == 2) in_second = n_allocations;
    EXPECT_LE(n_allocations, in_second) << "step " << update;
  }
  RecordProperty("allocations_in_a_step", std::to_string(in_second));
}

// Every kind of operand: none, two orientations of their own, shared codes with a history, tiles
// with factors, outer groups.
INSTANTIATE_TEST_SUITE_P(Recipes, Allocation,
                         ::testing::Values("fp32", "bf16", "nvfp4", "fp8-delayed", "fp8-block-fp32",
                                           "quartet2", "tetrajet2"),
                         [](const auto& test) { return test::test_name(test.param); });

}  // namespace
}  // namespace qstep::trainer::testing
