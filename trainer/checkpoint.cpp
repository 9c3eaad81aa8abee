#include "trainer/checkpoint.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <system_error>

#include "data/hdf5.h"
#include "trainer/checkpoint_folders.h"
#include "trainer/checkpoint_manifest.h"
#include "trainer/checkpoint_state.h"

namespace qstep::trainer {
namespace fs = std::filesystem;
namespace {

constexpr double kSpaceFactor = 1.1;  // of the size, to be free before a save begins

// Room for the object headers of one dataset with its attributes, generously.
constexpr int64_t kHeaderBytes = 2048;

int64_t planned_bytes(const CheckpointState& state, std::span<const NamedTensor> tensors) {
  auto bytes = static_cast<int64_t>(state.config_toml.size() + state.tokenizer_model.size());
  for (const NamedTensor& t : tensors) bytes += t.tensor.bytes() + kHeaderBytes;
  return bytes;
}

data::Hdf5Type stored_type(ops::Dtype dtype) {
  switch (dtype) {
    case ops::Dtype::kF32:
      return data::Hdf5Type::kF32;
    case ops::Dtype::kBf16:
      return data::Hdf5Type::kU16;  // HDF5 has no bfloat16; the attribute dtype says it
    case ops::Dtype::kI32:
      return data::Hdf5Type::kI32;
    case ops::Dtype::kU8:
      return data::Hdf5Type::kU8;
  }
  ops::check(false, "checkpoint: unknown tensor type");
  return {};
}

// Writes one tensor, all of it, and says where it went.
ManifestTensor write_tensor(data::Hdf5File& file, const NamedTensor& named) {
  const ops::Tensor& x = named.tensor;
  ops::check(x.data != nullptr && x.size() > 0 && x.contiguous(),
             "checkpoint: tensor " + named.name + " is empty or strided");
  TensorSlice slice;
  slice.file = rank_file(0);
  slice.rows = x.rows;
  slice.cols = x.cols;
  slice.hash = hash_hex(x.data, static_cast<size_t>(x.bytes()));

  const std::string object = "/" + named.name;
  const std::string group = object.substr(0, object.rfind('/'));
  if (!group.empty() && !file.exists(group)) file.create_group(group);
  const auto elements = static_cast<uint64_t>(x.size());
  data::Hdf5Dataset dataset = file.create_dataset(object, stored_type(x.dtype), elements);
  dataset.write(0, elements, x.data);
  slice.offset = static_cast<int64_t>(dataset.file_offset());
  dataset.close();
  file.write_attribute(object, "dtype", ops::name(x.dtype));
  file.write_attribute(object, "rows", x.rows);
  file.write_attribute(object, "cols", x.cols);
  file.write_attribute(object, "first_row", slice.first_row);
  file.write_attribute(object, "first_col", slice.first_col);
  file.write_attribute(object, "slice_rows", slice.rows);
  file.write_attribute(object, "slice_cols", slice.cols);
  return {named.name, x.dtype, x.rows, x.cols, {slice}};
}

ManifestFile describe_file(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  return {name, static_cast<int64_t>(fs::file_size(path)), hash_file(path)};
}

// This rank's file: written, closed, on disk, and read back for its checksum.
void write_rank_file(const CheckpointFiles& files, const std::string& folder, int64_t step,
                     std::span<const NamedTensor> tensors, Manifest& manifest) {
  const std::string path = folder + "/" + rank_file(0);
  try {
    files.step("create", path);
    data::Hdf5File file = data::Hdf5File::create(path);
    file.write_attribute("/", "step", step);
    file.write_attribute("/", "rank", int64_t{0});
    file.write_attribute("/", "ranks", manifest.ranks);
    std::set<std::string> names;
    for (const NamedTensor& tensor : tensors) {
      ops::check(names.insert(tensor.name).second, "checkpoint: two tensors " + tensor.name);
      files.step("write", path + "/" + tensor.name);
      manifest.tensors.push_back(write_tensor(file, tensor));
    }
    files.step("close", path);
    file.close();
  } catch (const data::Error& error) {
    throw ops::Error(ops::ExitCode::kDisk, error.what());
  }
  files.sync_file(path);
  files.step("checksum", path);
  manifest.files.push_back(describe_file(folder, rank_file(0)));
}

void write_contents(const CheckpointFiles& files, const std::string& folder,
                    const CheckpointState& state, std::span<const NamedTensor> tensors,
                    std::string& manifest_text) {
  Manifest manifest{.step = state.step, .ranks = 1, .files = {}, .tensors = {}};
  files.create_folder(folder);
  write_rank_file(files, folder, state.step, tensors, manifest);
  const auto add_file = [&](const char* name, const std::string& text) {
    files.write_file(folder + "/" + name, text);
    manifest.files.push_back(describe_file(folder, name));
  };
  add_file(kStateFile, state_to_json(state));
  if (!state.tokenizer_model.empty()) add_file(kTokenizerFile, state.tokenizer_model);
  files.sync_folder(folder);
  manifest_text = to_json(manifest);
  files.write_file(folder + "/" + kManifestFile, manifest_text);
  files.sync_folder(folder);
}

// Gives the finished `temporary` its name. A checkpoint of the same step (saved before a crash, now
// saved again) steps aside first; its new name is returned, for removal.
std::string publish_folder(const CheckpointFiles& files, const std::string& temporary,
                           const std::string& final_path, const std::string& nonce) {
  std::string aside;
  if (fs::exists(final_path)) {
    aside = final_path + kOldMark + nonce;
    files.rename(final_path, aside);
  }
  try {
    files.rename(temporary, final_path);
  } catch (...) {
    std::error_code ignored;
    if (!aside.empty()) fs::rename(aside, final_path, ignored);
    throw;
  }
  files.sync_folder(parent_folder(final_path));
  return aside;
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

void save_checkpoint(const std::string& root, const CheckpointState& state,
                     std::span<const NamedTensor> tensors, int64_t keep_last,
                     const StepHook& before_step) {
  const CheckpointFiles files(before_step);
  files.create_folders(root);
  const auto planned = static_cast<double>(planned_bytes(state, tensors));
  files.require_space(root, static_cast<int64_t>(kSpaceFactor * planned));

  const std::string nonce = make_nonce();
  const std::string final_path = root + "/" + step_folder(state.step);
  const std::string temporary = final_path + kTemporaryMark + nonce;
  std::string manifest_text;
  std::string replaced;
  try {
    write_contents(files, temporary, state, tensors, manifest_text);
    replaced = publish_folder(files, temporary, final_path, nonce);
  } catch (const std::system_error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw ops::Error(ops::ExitCode::kDisk, fmt::format("{}: {}{}", temporary, error.what(),
                                                       disk_advice(error.code().value())));
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
  files.replace_file(root + "/" + kLatestFile,
                     fmt::format("{} {}\n", step_folder(state.step), manifest_hash(manifest_text)));
  if (!replaced.empty()) files.remove_tree(replaced);
  apply_retention(files, root, keep_last, final_path);
}

}  // namespace qstep::trainer
