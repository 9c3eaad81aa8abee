// Small checkpoints with contents that follow from the step, for tests that kill, damage and
// compare.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"

namespace qstep::trainer::testing {

// Where a test's files are. The crash of a process loses nothing that the kernel has, so that
// hundreds of crashes may as well happen in memory, where fsync costs nothing.
enum class Storage : uint8_t { kDisk, kMemory };

// An empty folder that disappears with the object.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(Storage storage = Storage::kDisk) {
    static int count = 0;
    constexpr const char* kMemoryFolder = "/dev/shm/";
    const bool in_memory = storage == Storage::kMemory && ::access(kMemoryFolder, W_OK) == 0;
    path_ = (in_memory ? kMemoryFolder : ::testing::TempDir()) + "qstep_" +
            std::to_string(::getpid()) + "_" + std::to_string(count++);
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// One tensor of each type; every byte depends on `step`, the tensor and the position.
class Contents {
 public:
  explicit Contents(int64_t step, int64_t scale = 1) : step_(step) {
    add("weight/wte.weight", ops::Dtype::kBf16, 7 * scale, 13);
    add("master/wte.weight", ops::Dtype::kF32, 7 * scale, 13);
    add("adam_m/wte.weight", ops::Dtype::kF32, 7 * scale, 13);
    add("master/final_norm.weight", ops::Dtype::kF32, 1, 13);
    add("counts", ops::Dtype::kI32, 1, 5);
  }

  const std::vector<NamedTensor>& tensors() const { return tensors_; }

  CheckpointState state() const {
    return {.step = step_,
            .tokens = 1000 * step_,
            .updates = step_ - 1,
            .skipped_steps = 1,
            .bad_steps_in_a_row = 1,
            .seed = 0xFFFFFFFFFFFFFFF1u,
            .vocab_size = 7,
            .config_toml = "[train]\nsteps = 7  # \"quoted\"\n",
            .recipe_toml = "compute = \"bf16\"\n",
            .config_hash = "0123456789abcdef",
            .data_content_hash = "fedcba9876543210",
            .tokenizer = "sentencepiece",
            .tokenizer_sha256 = "00",
            .tokenizer_model = std::string("\0model\xff\n", 8)};
  }

  void save(const std::string& root, int64_t keep_last = 0, const StepHook& hook = {}) const {
    save_checkpoint(root, state(), tensors_, keep_last, hook);
  }

 private:
  void add(const std::string& name, ops::Dtype dtype, int64_t rows, int64_t cols) {
    storage_.emplace_back(static_cast<size_t>(rows * cols * ops::size_bytes(dtype)));
    std::vector<uint8_t>& bytes = storage_.back();
    auto x = static_cast<uint32_t>(step_ * 977 + static_cast<int64_t>(storage_.size()));
    for (uint8_t& byte : bytes) {
      x = x * 1664525u + 1013904223u;  // a linear congruential generator
      byte = static_cast<uint8_t>(x >> 24);
    }
    tensors_.push_back({name, ops::matrix(bytes.data(), dtype, rows, cols)});
  }

  int64_t step_;
  std::vector<std::vector<uint8_t>> storage_;  // inner buffers stay where they are
  std::vector<NamedTensor> tensors_;
};

// True when the checkpoint at `path` holds exactly Contents(its step).
inline bool holds_its_contents(const std::string& path) {
  const CheckpointReader reader(path);
  const Contents expected(reader.state().step);
  if (reader.names().size() != expected.tensors().size()) return false;
  for (const NamedTensor& tensor : expected.tensors()) {
    std::vector<char> found(static_cast<size_t>(tensor.tensor.bytes()));
    ops::Tensor into = tensor.tensor;
    into.data = found.data();
    reader.read({tensor.name, into});
    if (std::memcmp(found.data(), tensor.tensor.data, found.size()) != 0) return false;
  }
  const CheckpointState a = reader.state(), b = expected.state();
  return a.tokens == b.tokens && a.updates == b.updates && a.skipped_steps == b.skipped_steps &&
         a.bad_steps_in_a_row == b.bad_steps_in_a_row && a.seed == b.seed &&
         a.vocab_size == b.vocab_size && a.config_toml == b.config_toml &&
         a.recipe_toml == b.recipe_toml && a.config_hash == b.config_hash &&
         a.data_content_hash == b.data_content_hash && a.tokenizer == b.tokenizer &&
         a.tokenizer_sha256 == b.tokenizer_sha256 && a.tokenizer_model == b.tokenizer_model;
}

// The code of the Error that f throws, with its text in `text`; kOk when it throws none.
template <class F>
ops::ExitCode code_of(F&& f, std::string* text = nullptr) {
  try {
    f();
  } catch (const ops::Error& error) {
    if (text) *text = error.what();
    return error.code();
  }
  return ops::ExitCode::kOk;
}

// Names in a folder, sorted.
inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace qstep::trainer::testing
