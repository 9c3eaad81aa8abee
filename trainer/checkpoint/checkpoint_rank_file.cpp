#include "trainer/checkpoint/checkpoint_rank_file.h"

#include <fmt/format.h>

#include <bit>
#include <map>

#include "data/hdf5.h"
#include "trainer/base/disk_errors.h"

namespace qstep::trainer {
namespace {

static_assert(std::endian::native == std::endian::little, "readers take the bytes as they are");

// Room for the object headers of one dataset with its attributes, generously.
constexpr int64_t kHeaderBytes = 2048;

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

// The name of each slice's dataset: the tensor's; of one with several slices, parts of a group of
// that name.
std::vector<std::string> dataset_names(std::span<const NamedTensor> own) {
  std::map<std::string, int64_t> slices, parts;
  for (const NamedTensor& named : own) ++slices[named.name];
  std::vector<std::string> names;
  for (const NamedTensor& named : own) {
    names.push_back("/" + named.name);
    if (slices[named.name] > 1) names.back() += fmt::format("/part{}", parts[named.name]++);
  }
  return names;
}

void create_groups_of(data::Hdf5File& file, const std::string& dataset) {
  for (size_t at = dataset.find('/', 1); at != std::string::npos; at = dataset.find('/', at + 1)) {
    const std::string group = dataset.substr(0, at);
    if (!file.exists(group)) file.create_group(group);
  }
}

// Writes one slice and says where it went.
ManifestTensor write_slice(data::Hdf5File& file, const std::string& file_name,
                           const std::string& dataset_name, const NamedTensor& named) {
  const ops::Tensor& x = named.tensor;
  TensorSlice stored;
  stored.file = file_name;
  stored.dataset = dataset_name;
  stored.held = *named.slice;
  stored.hash = hash_hex(x.data, static_cast<size_t>(x.bytes()));

  create_groups_of(file, dataset_name);
  const auto elements = static_cast<uint64_t>(x.size());
  data::Hdf5Dataset dataset = file.create_dataset(dataset_name, stored_type(x.dtype), elements);
  dataset.write(0, elements, x.data);
  stored.offset = static_cast<int64_t>(dataset.file_offset());
  dataset.close();
  file.write_attribute(dataset_name, "dtype", ops::name(x.dtype));
  const Slice& s = stored.held;
  for (const auto& [name, value] :
       {std::pair("rows", s.rows), std::pair("cols", s.cols), std::pair("first_row", s.first_row),
        std::pair("first_col", s.first_col), std::pair("slice_rows", s.block_rows),
        std::pair("slice_cols", s.block_cols), std::pair("run_first", s.first)}) {
    file.write_attribute(dataset_name, name, value);
  }
  return {named.name, x.dtype, s.rows, s.cols, {stored}};
}

}  // namespace

std::vector<NamedTensor> own_slices(std::span<const NamedTensor> tensors, int64_t rank) {
  std::vector<NamedTensor> own;
  for (const NamedTensor& named : tensors) {
    const ops::Tensor& x = named.tensor;
    if (!named.slice && rank != 0) continue;
    if (named.slice && named.slice->count == 0) continue;
    const Slice slice = named.slice.value_or(whole(x));
    ops::check(x.data != nullptr && x.size() > 0 && x.contiguous(),
               "checkpoint: tensor " + named.name + " is empty or strided");
    ops::check(slice.valid(), "checkpoint: tensor " + named.name + ": slice outside");
    ops::check_equal(slice.count, x.size(), "checkpoint: tensor " + named.name + ": elements");
    own.push_back({named.name, x, slice});
  }
  return own;
}

int64_t planned_bytes(std::span<const NamedTensor> own) {
  int64_t bytes = kHeaderBytes;
  for (const NamedTensor& named : own) bytes += named.tensor.bytes() + kHeaderBytes;
  return bytes;
}

Manifest write_rank_file(const CheckpointFiles& files, const std::string& folder, int64_t step,
                         int64_t rank, int64_t ranks, std::span<const NamedTensor> own) {
  const std::string name = rank_file(rank);
  const std::string path = folder + "/" + name;
  const std::vector<std::string> datasets = dataset_names(own);
  return with_disk_errors(path, [&] {
    files.step("create", path);
    data::Hdf5File file = data::Hdf5File::create(path);
    file.write_attribute("/", "step", step);
    file.write_attribute("/", "rank", rank);
    file.write_attribute("/", "ranks", ranks);
    std::vector<ManifestTensor> slices;
    for (size_t i = 0; i < own.size(); ++i) {
      files.step("write", path + datasets[i]);
      slices.push_back(write_slice(file, name, datasets[i], own[i]));
    }
    files.step("close", path);
    file.close();
    files.sync_file(path);
    files.step("checksum", path);
    return Manifest{.step = step,
                    .ranks = ranks,
                    .files = {describe_file(folder, name)},
                    .tensors = join_slices(slices)};
  });
}

}  // namespace qstep::trainer
