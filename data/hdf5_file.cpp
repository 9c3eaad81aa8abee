#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "data/hdf5_internal.h"

namespace qstep::data {

using namespace hdf5_internal;

Hdf5File Hdf5File::create(const std::string& path) {
  const Hdf5Lock lock;
  Hdf5File file;
  file.path_ = path;
  file.handle_ = own(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose,
                     fmt::format("{}: cannot create the file", path), Access::kWrite);
  return file;
}

Hdf5File Hdf5File::open(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    const int code = errno;
    throw Error(fmt::format("{}: cannot open: {}{}", path, std::strerror(code), hint(code)));
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(fmt::format("{}: expected an HDF5 file, found something that is not a file", path));
  }
  if (status.st_size == 0) {
    throw Error(fmt::format("{}: expected an HDF5 file, found an empty file", path));
  }
  const Hdf5Lock lock;
  Hdf5File file;
  file.path_ = path;
  file.handle_ = own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
                     fmt::format("{}: cannot open as an HDF5 file", path), Access::kRead);
  return file;
}

bool Hdf5File::exists(const std::string& object) const {
  const Hdf5Lock lock;
  // H5Lexists wants every group on the way to exist.
  for (size_t at = object.find('/', 1); at != std::string::npos; at = object.find('/', at + 1)) {
    if (H5Lexists(handle_.id(), object.substr(0, at).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  if (object == "/") return true;
  const bool found = H5Lexists(handle_.id(), object.c_str(), H5P_DEFAULT) > 0;
  H5Eclear2(H5E_DEFAULT);
  return found;
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  const htri_t found = H5Aexists_by_name(handle_.id(), object.c_str(), name.c_str(), H5P_DEFAULT);
  H5Eclear2(H5E_DEFAULT);
  return found > 0;
}

void Hdf5File::create_group(const std::string& object) {
  const Hdf5Lock lock;
  own(H5Gcreate2(handle_.id(), object.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose,
      fmt::format("{}: cannot create group {}", path_, object), Access::kWrite);
}

namespace {

Hdf5Handle access_list(uint64_t cache_bytes, const std::string& what, Access access) {
  Hdf5Handle list = own(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose, what, access);
  if (cache_bytes > 0) {
    constexpr size_t kSlots = 521;  // a prime well above the number of chunks that fit
    must(H5Pset_chunk_cache(list.id(), kSlots, cache_bytes, H5D_CHUNK_CACHE_W0_DEFAULT), what,
         access);
  }
  return list;
}

Hdf5Handle create_1d(hid_t file, const std::string& object, Hdf5Type type, hsize_t elements,
                     hsize_t max_elements, const Hdf5Layout& layout, const std::string& what) {
  const auto ok = [&](auto result) { return must(result, what, Access::kWrite); };
  const Hdf5Handle list = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what, Access::kWrite);
  ok(H5Pset_obj_track_times(list.id(), false));  // same content, same file bytes
  if (layout.chunk_elements > 0) {
    // The library refuses chunks larger than a dataset that cannot grow.
    const hsize_t chunk =
        std::clamp<hsize_t>(layout.chunk_elements, 1, std::max<hsize_t>(1, max_elements));
    ok(H5Pset_chunk(list.id(), 1, &chunk));
    if (layout.checksum == Checksum::kFletcher32) ok(H5Pset_fletcher32(list.id()));
  }
  const Hdf5Handle space =
      own(H5Screate_simple(1, &elements, &max_elements), H5Sclose, what, Access::kWrite);
  const Hdf5Handle access = access_list(layout.cache_bytes, what, Access::kWrite);
  return own(H5Dcreate2(file, object.c_str(), row(type).file, space.id(), H5P_DEFAULT, list.id(),
                        access.id()),
             H5Dclose, what, Access::kWrite);
}

}  // namespace

Hdf5Dataset Hdf5File::create_dataset(const std::string& object, Hdf5Type type, uint64_t elements,
                                     const Hdf5Layout& layout) {
  return create(object, type, elements, elements, layout);
}

Hdf5Dataset Hdf5File::create_growing_dataset(const std::string& object, Hdf5Type type,
                                             const Hdf5Layout& layout) {
  return create(object, type, 0, H5S_UNLIMITED, layout);
}

Hdf5Dataset Hdf5File::create(const std::string& object, Hdf5Type type, uint64_t elements,
                             uint64_t max_elements, const Hdf5Layout& layout) {
  const Hdf5Lock lock;
  Hdf5Dataset dataset;
  dataset.where_ = fmt::format("{}: dataset {}", path_, object);
  dataset.handle_ = create_1d(handle_.id(), object, type, elements, max_elements, layout,
                              dataset.where_ + ": cannot create");
  dataset.type_ = type;
  dataset.size_ = elements;
  return dataset;
}

Hdf5Dataset Hdf5File::open_dataset(const std::string& object, uint64_t cache_bytes) const {
  const Hdf5Lock lock;
  if (!exists(object)) throw Error(fmt::format("{}: dataset {} is missing", path_, object));
  Hdf5Dataset dataset;
  dataset.where_ = fmt::format("{}: dataset {}", path_, object);
  const std::string what = dataset.where_ + ": cannot open";
  const Hdf5Handle access = access_list(cache_bytes, what, Access::kRead);
  dataset.handle_ =
      own(H5Dopen2(handle_.id(), object.c_str(), access.id()), H5Dclose, what, Access::kRead);

  const Hdf5Handle type = own(H5Dget_type(dataset.handle_.id()), H5Tclose, what, Access::kRead);
  const TypeRow* found = find_type(type.id());
  if (!found) {
    throw Error(fmt::format("{}: expected little-endian integers or floats, found another type",
                            dataset.where_));
  }
  dataset.type_ = found->type;

  const Hdf5Handle space = own(H5Dget_space(dataset.handle_.id()), H5Sclose, what, Access::kRead);
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank != 1) {
    throw Error(fmt::format("{}: expected 1 dimension, found {}", dataset.where_, rank));
  }
  hsize_t size = 0;
  must(H5Sget_simple_extent_dims(space.id(), &size, nullptr), what, Access::kRead);
  dataset.size_ = size;
  return dataset;
}

void Hdf5File::write_dataset(const std::string& object, Hdf5Type type, uint64_t elements,
                             const void* data, const Hdf5Layout& layout) {
  const Hdf5Lock lock;
  Hdf5Dataset dataset = create_dataset(object, type, elements, layout);
  dataset.write(0, elements, data);
  dataset.close();
}

void Hdf5File::read_dataset(const std::string& object, Hdf5Type type, uint64_t elements,
                            void* out) const {
  const Hdf5Lock lock;
  const Hdf5Dataset dataset = open_dataset(object);
  if (dataset.type() != type || dataset.size() != elements) {
    throw Error(fmt::format("{}: expected {} elements of {}, found {} of {}", dataset.where(),
                            elements, type_name(type), dataset.size(), type_name(dataset.type())));
  }
  dataset.read(0, elements, out);
}

void Hdf5File::close() {
  const Hdf5Lock lock;
  const std::string what = fmt::format("{}: cannot finish writing the file", path_);
  if (!handle_) return;
  must(H5Fflush(handle_.id(), H5F_SCOPE_LOCAL), what, Access::kWrite);
  if (!handle_.close()) fail(what, Access::kWrite);
}

}  // namespace qstep::data
