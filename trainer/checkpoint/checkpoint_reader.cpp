#include <fmt/format.h>

#include <cstring>
#include <map>
#include <system_error>

#include "trainer/base/agreement.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/checkpoint/checkpoint_state.h"

namespace qstep::trainer {
namespace {

[[noreturn]] void fail(const std::string& text) {
  throw ops::Error(ops::ExitCode::kCheckpoint, text);
}

// Runs f; what the system reports becomes an Error (checkpoint).
template <class F>
auto with_checkpoint_errors(F&& f) {
  try {
    return f();
  } catch (const std::system_error& error) {
    fail(error.what());
  }
}

void check_hash(const std::string& path, const ManifestTensor& tensor, const TensorSlice& stored,
                const void* elements, int64_t bytes) {
  const std::string hash = hash_hex(elements, static_cast<size_t>(bytes));
  if (hash != stored.hash) fail(path + ": " + damage_text(tensor, stored, hash));
}

// Elements [in_wanted, in_wanted + n) of what is wanted, which a stored slice has at in_stored.
struct CommonRun {
  int64_t in_wanted = 0, in_stored = 0, n = 0;
};

// Puts what `stored` has of `wanted` into its place. All of a stored slice is checked against its
// checksum; of parts only the file has one.
void read_common(const std::string& folder, const ManifestTensor& tensor, const TensorSlice& stored,
                 const Slice& wanted, char* out) {
  std::vector<CommonRun> runs;
  int64_t n = 0;
  for_each_common_run(wanted, stored.held,
                      [&](int64_t in_wanted, int64_t in_stored, int64_t count) {
                        runs.push_back({in_wanted, in_stored, count});
                        n += count;
                      });
  if (runs.empty()) return;
  const std::string path = folder + "/" + stored.file;
  const InputFile file(path);
  const int64_t size = ops::size_bytes(tensor.dtype);
  const bool complete = n == stored.held.count;
  if (runs.size() == 1 || !complete) {
    for (const CommonRun& run : runs) {
      file.read(stored.offset + run.in_stored * size, run.n * size, out + run.in_wanted * size);
    }
    if (complete) check_hash(path, tensor, stored, out + runs[0].in_wanted * size, n * size);
    return;
  }
  std::vector<char> elements(static_cast<size_t>(n * size));
  file.read(stored.offset, n * size, elements.data());
  check_hash(path, tensor, stored, elements.data(), n * size);
  for (const CommonRun& run : runs) {
    std::memcpy(out + run.in_wanted * size, elements.data() + run.in_stored * size,
                static_cast<size_t>(run.n * size));
  }
}

}  // namespace

struct CheckpointReader::Impl {
  std::string path;
  Manifest manifest;
  std::map<std::string, const ManifestTensor*> tensors;  // into manifest
};

CheckpointReader::CheckpointReader(const std::string& path, Verify verify)
    : CheckpointReader(*parallel::make_single(), path, verify) {}

CheckpointReader::CheckpointReader(parallel::Comm& comm, const std::string& path, Verify verify) {
  const std::string problem = verify_checkpoint(comm, path, verify);
  if (!problem.empty()) throw AgreedError(ops::ExitCode::kCheckpoint, problem);
  agree(comm, [&] { open(path); });
}

void CheckpointReader::open(const std::string& path) {
  impl_ = std::make_unique<Impl>();
  impl_->path = path;
  impl_->manifest = read_manifest(path);
  for (const ManifestTensor& tensor : impl_->manifest.tensors) {
    impl_->tensors[tensor.name] = &tensor;
  }
  with_checkpoint_errors([&] {
    const std::string state_path = path + "/" + kStateFile;
    state_ = state_from_json(read_file(state_path), state_path);
    for (const ManifestFile& file : impl_->manifest.files) {
      if (file.name == kTokenizerFile) state_.tokenizer_model = read_file(path + "/" + file.name);
    }
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
  const Slice wanted = into.slice.value_or(whole(x));
  if (into.slice && wanted.count == 0) return;
  ops::check(x.data != nullptr && x.contiguous(), "checkpoint: read into an empty or strided view");
  ops::check(wanted.valid(), "checkpoint: read a slice outside the tensor " + into.name);
  ops::check_equal(wanted.count, x.size(), "checkpoint: read " + into.name + ": elements");
  const auto found = impl_->tensors.find(into.name);
  if (found == impl_->tensors.end()) {
    fail(fmt::format("{}: has no tensor {}", impl_->path, into.name));
  }
  const ManifestTensor& tensor = *found->second;
  if (tensor.rows != wanted.rows || tensor.cols != wanted.cols || tensor.dtype != x.dtype) {
    fail(fmt::format(
        "{}: tensor {}: expected {} [{}, {}], found {} [{}, {}]; the checkpoint belongs "
        "to another model",
        impl_->path, into.name, ops::name(x.dtype), wanted.rows, wanted.cols,
        ops::name(tensor.dtype), tensor.rows, tensor.cols));
  }
  with_checkpoint_errors([&] {
    for (const TensorSlice& stored : tensor.slices) {
      read_common(impl_->path, tensor, stored, wanted, static_cast<char*>(x.data));
    }
  });
}

}  // namespace qstep::trainer
