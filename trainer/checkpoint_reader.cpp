#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <system_error>

#include "data/hdf5.h"
#include "trainer/checkpoint.h"
#include "trainer/checkpoint_manifest.h"
#include "trainer/checkpoint_state.h"

namespace qstep::trainer {
namespace {

[[noreturn]] void fail(const std::string& text) {
  throw ops::Error(ops::ExitCode::kCheckpoint, text);
}

// Runs f; what the data room and the system report becomes an Error (checkpoint).
template <class F>
auto with_checkpoint_errors(F&& f) {
  try {
    return f();
  } catch (const data::Error& error) {
    fail(error.what());
  } catch (const std::system_error& error) {
    fail(error.what());
  }
}

}  // namespace

struct CheckpointReader::Impl {
  std::string path;
  Manifest manifest;
  std::map<std::string, const ManifestTensor*> tensors;  // into manifest
  data::Hdf5File file;
};

CheckpointReader::CheckpointReader(const std::string& path) : impl_(std::make_unique<Impl>()) {
  const std::string problem = verify_checkpoint(path, Verify::kFull);
  if (!problem.empty()) fail(problem);
  impl_->path = path;
  impl_->manifest = read_manifest(path);
  if (impl_->manifest.ranks != 1) {
    fail(fmt::format("{}: saved by {} ranks; this version of qstep reads checkpoints of one rank",
                     path, impl_->manifest.ranks));
  }
  for (const ManifestTensor& tensor : impl_->manifest.tensors) {
    if (tensor.slices.size() != 1 || tensor.slices[0].rows != tensor.rows ||
        tensor.slices[0].cols != tensor.cols) {
      fail(fmt::format("{}: tensor {} is not complete", path, tensor.name));
    }
    impl_->tensors[tensor.name] = &tensor;
  }
  with_checkpoint_errors([&] {
    const std::string state_path = path + "/" + kStateFile;
    state_ = state_from_json(read_file(state_path), state_path);
    for (const ManifestFile& file : impl_->manifest.files) {
      if (file.name == kTokenizerFile) state_.tokenizer_model = read_file(path + "/" + file.name);
    }
    impl_->file = data::Hdf5File::open(path + "/" + rank_file(0));
  });
}

CheckpointReader::~CheckpointReader() = default;

const std::string& CheckpointReader::path() const { return impl_->path; }

bool CheckpointReader::has(const std::string& name) const { return impl_->tensors.contains(name); }

int64_t CheckpointReader::cols(const std::string& name) const {
  return impl_->tensors.at(name)->cols;
}

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> names;
  for (const ManifestTensor& tensor : impl_->manifest.tensors) names.push_back(tensor.name);
  return names;
}

void CheckpointReader::read(const NamedTensor& into) const {
  const ops::Tensor& x = into.tensor;
  ops::check(x.data != nullptr && x.contiguous(), "checkpoint: read into an empty or strided view");
  const auto found = impl_->tensors.find(into.name);
  if (found == impl_->tensors.end()) {
    fail(fmt::format("{}: has no tensor {}", impl_->path, into.name));
  }
  const ManifestTensor& tensor = *found->second;
  if (tensor.rows != x.rows || tensor.cols != x.cols || tensor.dtype != x.dtype) {
    fail(fmt::format(
        "{}: tensor {}: expected {} [{}, {}], found {} [{}, {}]; the checkpoint belongs "
        "to another model",
        impl_->path, into.name, ops::name(x.dtype), x.rows, x.cols, ops::name(tensor.dtype),
        tensor.rows, tensor.cols));
  }
  with_checkpoint_errors([&] {
    const data::Hdf5Dataset dataset = impl_->file.open_dataset("/" + into.name);
    if (dataset.size() != static_cast<uint64_t>(x.size()) ||
        data::size_bytes(dataset.type()) != static_cast<uint64_t>(ops::size_bytes(x.dtype))) {
      fail(fmt::format("{}: differs from the manifest", dataset.where()));
    }
    dataset.read(0, dataset.size(), x.data);
  });
  const std::string hash = hash_hex(x.data, static_cast<size_t>(x.bytes()));
  if (hash != tensor.slices[0].hash) {
    fail(fmt::format("{}/{}: tensor {} is damaged: expected XXH3 {}, found {}", impl_->path,
                     tensor.slices[0].file, into.name, tensor.slices[0].hash, hash));
  }
}

}  // namespace qstep::trainer
