#include <fmt/format.h>

#include "data/hdf5_internal.h"

namespace qstep::data {

using namespace hdf5_internal;

namespace {

std::string range_text(const std::string& where, const char* verb, uint64_t first, uint64_t n) {
  return fmt::format("{}: cannot {} elements {} to {}", where, verb, first, first + n);
}

// Moves elements [first, first + n) of a 1-D dataset to or from memory by H5Dread or H5Dwrite.
template <class Call>
void transfer(hid_t dataset, Hdf5Type type, uint64_t first, uint64_t n, const std::string& where,
              Access access, Call call) {
  const hsize_t start = first, count = n;
  const Hdf5Handle file{H5Dget_space(dataset), H5Sclose};
  const Hdf5Handle memory{H5Screate_simple(1, &count, nullptr), H5Sclose};
  const bool done =
      file && memory &&
      H5Sselect_hyperslab(file.id(), H5S_SELECT_SET, &start, nullptr, &count, nullptr) >= 0 &&
      call(dataset, row(type).memory, memory.id(), file.id()) >= 0;
  // Here, while the handles live: closing them would clear the error stack.
  if (!done) fail(range_text(where, access == Access::kRead ? "read" : "write", first, n), access);
}

}  // namespace

void Hdf5Dataset::read(uint64_t first, uint64_t n, void* out) const {
  if (n == 0) return;
  if (first > size_ || n > size_ - first) {
    throw Error(fmt::format("{}: elements {} to {} asked for, but it has {}", where_, first,
                            first + n, size_));
  }
  const Hdf5Lock lock;
  const auto call = [&](hid_t dataset, hid_t type, hid_t memory, hid_t file) {
    return H5Dread(dataset, type, memory, file, H5P_DEFAULT, out);
  };
  transfer(handle_.id(), type_, first, n, where_, Access::kRead, call);
}

void Hdf5Dataset::write(uint64_t first, uint64_t n, const void* data) {
  if (n == 0) return;
  const Hdf5Lock lock;
  const auto call = [&](hid_t dataset, hid_t type, hid_t memory, hid_t file) {
    return H5Dwrite(dataset, type, memory, file, H5P_DEFAULT, data);
  };
  transfer(handle_.id(), type_, first, n, where_, Access::kWrite, call);
}

void Hdf5Dataset::append(uint64_t n, const void* data) {
  if (n == 0) return;
  const Hdf5Lock lock;
  const hsize_t grown = size_ + n;
  must(H5Dset_extent(handle_.id(), &grown), range_text(where_, "append", size_, n), Access::kWrite);
  write(size_, n, data);
  size_ = grown;
}

uint64_t Hdf5Dataset::file_offset() const {
  const Hdf5Lock lock;
  const haddr_t offset = H5Dget_offset(handle_.id());
  if (offset == HADDR_UNDEF) fail(where_ + ": has no place in the file", Access::kRead);
  return offset;
}

void Hdf5Dataset::close() {
  const Hdf5Lock lock;
  if (!handle_.close()) fail(fmt::format("{}: cannot finish writing", where_), Access::kWrite);
}

}  // namespace qstep::data
