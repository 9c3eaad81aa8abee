#include "trainer/checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "trainer/base/agreement.h"
#include "trainer/base/disk_errors.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/checkpoint/checkpoint_rank_file.h"
#include "trainer/checkpoint/checkpoint_state.h"

namespace qstep::trainer {
namespace fs = std::filesystem;
namespace {

constexpr double kSpaceFactor = 1.1;  // of the size, to be free before a save begins

// Where one save works.
struct SavePaths {
  SavePaths(const std::string& root, int64_t step, const std::string& nonce)
      : latest(root + "/" + kLatestFile),
        final_folder(root + "/" + step_folder(step)),
        temporary(final_folder + kTemporaryMark + nonce),
        old(final_folder + kOldMark + nonce) {}

  std::string latest, final_folder, temporary;
  std::string old;  // a checkpoint of the same step, out of the way of its replacement
};

// Rank 0: makes the temporary folder if there is room; returns the nonce of this save.
std::string make_room(const CheckpointFiles& files, const std::string& root, int64_t step,
                      int64_t bytes) {
  files.create_folders(root);
  const double needed = kSpaceFactor * static_cast<double>(bytes);
  files.require_space(root, static_cast<int64_t>(needed));
  std::string nonce = make_nonce();
  files.create_folder(SavePaths(root, step, nonce).temporary);
  return nonce;
}

// Rank 0: everything beside the tensors; the manifest comes last. Returns its text.
std::string complete_folder(const CheckpointFiles& files, const std::string& folder,
                            const CheckpointState& state, Manifest manifest) {
  const auto add_file = [&](const char* name, const std::string& text) {
    files.write_file(folder + "/" + name, text);
    manifest.files.push_back(describe_file(folder, name));
  };
  add_file(kStateFile, state_to_json(state));
  if (!state.tokenizer_model.empty()) add_file(kTokenizerFile, state.tokenizer_model);
  files.sync_folder(folder);
  const std::string problem = completeness_problem(manifest);
  ops::check(problem.empty(), "checkpoint: " + problem);
  std::string text = to_json(manifest);
  files.write_file(folder + "/" + kManifestFile, text);
  files.sync_folder(folder);
  return text;
}

// One manifest of those that the ranks have sent.
Manifest manifest_of_all(std::span<const std::string> texts) {
  std::vector<Manifest> parts;
  std::vector<ManifestTensor> entries;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    parts.push_back(manifest_from_json(texts[rank], fmt::format("manifest of rank {}", rank)));
    const std::vector<ManifestTensor>& tensors = parts.back().tensors;
    entries.insert(entries.end(), tensors.begin(), tensors.end());
  }
  Manifest all{.step = parts[0].step, .ranks = parts[0].ranks, .files = {}, .tensors = {}};
  for (const Manifest& part : parts) all.files.push_back(part.files.at(0));
  all.tensors = join_slices(entries);
  return all;
}

// Gives the finished temporary folder its name. A checkpoint of the same step (saved before a
// crash, now saved again) steps aside first.
void publish_folder(const CheckpointFiles& files, const SavePaths& paths) {
  const bool again = fs::exists(paths.final_folder);
  if (again) files.rename(paths.final_folder, paths.old);
  try {
    files.rename(paths.temporary, paths.final_folder);
  } catch (...) {
    std::error_code ignored;
    if (again) fs::rename(paths.old, paths.final_folder, ignored);
    throw;
  }
  files.sync_folder(parent_folder(paths.final_folder));
}

// Removal in two steps: a folder without its full name is never taken for a checkpoint.
void remove_checkpoint(const CheckpointFiles& files, const std::string& path) {
  const std::string doomed = path + kDeletedMark + make_nonce();
  files.rename(path, doomed);
  files.remove_tree(doomed);
}

void apply_retention(const CheckpointFiles& files, const std::string& root, int64_t keep_last,
                     const std::string& latest) {
  if (keep_last <= 0) return;
  const std::vector<CheckpointInfo> all = list_checkpoints(root, Verify::kFast);
  int64_t kept = 0;
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    if (kept >= keep_last && it->path != latest) {
      remove_checkpoint(files, it->path);
    } else if (it->problem.empty()) {
      ++kept;  // a damaged one is no reason to give up an older one
    }
  }
}

}  // namespace

void save_checkpoint(parallel::Comm& comm, const std::string& root, const CheckpointState& state,
                     std::span<const NamedTensor> tensors, int64_t keep_last,
                     const StepHook& before_step) {
  const CheckpointFiles files(before_step);
  std::vector<NamedTensor> own;
  const std::vector<std::string> sizes = agree_texts(comm, [&] {
    own = own_slices(tensors, comm.rank());
    return std::to_string(planned_bytes(own));
  });
  const std::string nonce = text_of_first_rank(comm, [&] {
    auto bytes = static_cast<int64_t>(state.config_toml.size() + state.tokenizer_model.size());
    for (const std::string& size : sizes) bytes += std::stoll(size);
    return make_room(files, root, state.step, bytes);
  });
  const SavePaths paths(root, state.step, nonce);
  std::string manifest_text;
  try {
    const std::vector<std::string> manifests = agree_texts(comm, [&] {
      return to_json(
          write_rank_file(files, paths.temporary, state.step, comm.rank(), comm.size(), own));
    });
    on_first_rank(comm, [&] {
      with_disk_errors(paths.temporary, [&] {
        manifest_text = complete_folder(files, paths.temporary, state, manifest_of_all(manifests));
        publish_folder(files, paths);
      });
    });
  } catch (...) {
    std::error_code ignored;
    if (comm.rank() == 0) fs::remove_all(paths.temporary, ignored);
    throw;
  }
  on_first_rank(comm, [&] {
    files.replace_file(paths.latest, fmt::format("{} {}\n", step_folder(state.step),
                                                 manifest_hash(manifest_text)));
    if (fs::exists(paths.old)) files.remove_tree(paths.old);
    apply_retention(files, root, keep_last, paths.final_folder);
  });
}

void save_checkpoint(const std::string& root, const CheckpointState& state,
                     std::span<const NamedTensor> tensors, int64_t keep_last,
                     const StepHook& before_step) {
  save_checkpoint(*parallel::make_single(), root, state, tensors, keep_last, before_step);
}

}  // namespace qstep::trainer
