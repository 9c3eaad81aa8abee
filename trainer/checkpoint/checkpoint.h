// Checkpoints: everything a run needs to continue with the same bits, published by rename.
//
// A checkpoint is a folder step-00000100/ with one HDF5 file per rank, state.json, the tokenizer
// and, written last, manifest.json with a checksum per file. `latest` is a hint; the truth is the
// newest folder whose manifest verifies. trainer/checkpoint/README.md specifies the files byte by
// byte.
//
// Ranks store what they hold, and read what they need: any number of ranks, cut in any way, takes
// up what another number wrote. Functions with a Comm are called by all its ranks together.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ops/tensor.h"
#include "parallel/comm.h"
#include "trainer/base/durable_files.h"
#include "trainer/base/slice.h"

namespace qstep::trainer {

// A tensor by its global name ("master/blocks.3.qkv.weight"), or what one rank holds of it: the
// elements of `slice` in its order, of any shape. Contiguous, in host memory. A rank may hold
// several slices of one name, and empty ones.
struct NamedTensor {
  std::string name;
  ops::Tensor tensor;
  std::optional<Slice> slice = std::nullopt;  // nothing: all of it, with equal bits on every rank
};

// All state that is not a tensor. checkpoint_state.cpp lists the fields once for writing and
// reading.
struct CheckpointState {
  int64_t step = 0;           // optimizer steps done; the data cursor follows from it
  int64_t tokens = 0;         // target positions that entered the loss so far
  int64_t updates = 0;        // steps not skipped: the t of AdamW's bias correction
  int64_t skipped_steps = 0;  // non-finite
  int64_t bad_steps_in_a_row = 0;
  uint64_t seed = 0;
  int64_t vocab_size = 0;
  std::string config_toml;  // resolved configuration of the run that saved it
  std::string recipe_toml;  // the recipe of that configuration, to_toml; empty: bf16 or fp32
  std::string config_hash;
  std::string data_content_hash;  // of the token store
  std::string tokenizer;          // "bytes", "sentencepiece", ...
  std::string tokenizer_sha256;
  std::string tokenizer_model;  // serialized; a file of its own in the checkpoint
};

struct CheckpointInfo {
  std::string path;  // folder
  int64_t step = 0;
  int64_t bytes = 0;
  int64_t ranks = 0;    // that wrote it
  std::string problem;  // empty: complete and, where asked for, verified
};

enum class Verify : uint8_t { kFast, kFull };  // manifest, names and sizes; or every checksum too

// Writes <root>/step-XXXXXXXX by the publication protocol, then moves `latest` and removes what is
// older than the newest `keep_last` (0 = keep all; the target of `latest` always stays). Throws
// Error (disk) when it cannot: older checkpoints and `latest` are untouched then, and no temporary
// folder is left where it can be removed. One process at a time may save into a root (RunDir sees
// to it).
void save_checkpoint(const std::string& root, const CheckpointState& state,
                     std::span<const NamedTensor> tensors, int64_t keep_last,
                     const StepHook& before_step = {});

// The same by all ranks of `comm`, each of which writes its own file. The slices of all ranks must
// hold every element of every tensor exactly once; a tensor without a slice is written by rank 0
// alone. `state`, `keep_last`, the tokenizer and all that concerns the folder count on rank 0;
// `state.step` and `root` are the same on all. When one rank fails, nothing is published and all
// throw its Error, "rank 2: ...".
void save_checkpoint(parallel::Comm& comm, const std::string& root, const CheckpointState& state,
                     std::span<const NamedTensor> tensors, int64_t keep_last,
                     const StepHook& before_step = {});

// All step folders of <root>, oldest first.
std::vector<CheckpointInfo> list_checkpoints(const std::string& root, Verify verify);

// One checkpoint folder, under whatever name; what is wrong with it is in `problem`.
CheckpointInfo inspect_checkpoint(const std::string& path, Verify verify);

// Its problem alone, or an empty string.
std::string verify_checkpoint(const std::string& path, Verify verify);
// The same text on all ranks. Rank 0 looks at manifest, names and sizes; in full, every rank then
// checks a share of the files.
std::string verify_checkpoint(parallel::Comm& comm, const std::string& path, Verify verify);

// The newest checkpoint of <root> that verifies in full; `on_fallback` hears why newer ones were
// passed over. Nothing when there is no checkpoint at all; Error (checkpoint) when there are, and
// none verifies.
std::optional<std::string> newest_checkpoint(
    const std::string& root, const std::function<void(const CheckpointInfo&)>& on_fallback);
// All ranks verify together and get the same answer; rank 0 alone calls `on_fallback`.
std::optional<std::string> newest_checkpoint(
    parallel::Comm& comm, const std::string& root,
    const std::function<void(const CheckpointInfo&)>& on_fallback);

// <path>/checkpoints where that exists (a run folder), else `path`.
std::string checkpoint_root(const std::string& path);

// Removes what a killed save left behind in <root>, and puts back a checkpoint that was moved aside
// for its own replacement. Only for the process that may save into <root>, before
// newest_checkpoint.
void remove_stale_temporaries(const std::string& root, const StepHook& before_step = {});
// Rank 0 does it; all throw when it cannot.
void remove_stale_temporaries(parallel::Comm& comm, const std::string& root,
                              const StepHook& before_step = {});

class CheckpointReader {
 public:
  // Verifies the folder before anything is read. kFast is enough for what newest_checkpoint has
  // just found.
  explicit CheckpointReader(const std::string& path, Verify verify = Verify::kFull);
  // All ranks verify it together, and all throw when one cannot open it.
  CheckpointReader(parallel::Comm& comm, const std::string& path, Verify verify = Verify::kFull);
  CheckpointReader(const CheckpointReader&) = delete;
  CheckpointReader& operator=(const CheckpointReader&) = delete;
  ~CheckpointReader();

  const std::string& path() const;
  const CheckpointState& state() const { return state_; }
  bool has(const std::string& name) const;
  std::vector<std::string> names() const;
  // Columns of a tensor that it has.
  int64_t cols(const std::string& name) const;
  // Fills `into.tensor` with the elements of `into.slice`, whoever wrote them. Checks type and
  // global shape, and the checksum of every stored slice of which all is read. Not a collective:
  // ranks read what each needs (trainer/base/agreement.h tells them of each other's errors).
  void read(const NamedTensor& into) const;

 private:
  struct Impl;
  void open(const std::string& path);

  CheckpointState state_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qstep::trainer
