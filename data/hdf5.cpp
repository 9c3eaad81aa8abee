#include "data/hdf5.h"

#include <fmt/format.h>
#include <hdf5.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

namespace qstep::data {
namespace {

static_assert(std::is_same_v<hid_t, int64_t> && std::is_same_v<herr_t, int>);

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  // Without its clean-up at exit: after a write that failed (a full disk) version 1.10 crashes
  // there, and the process would not end with the code of its error. Every file is closed by its
  // owner anyway.
  static const herr_t no_clean_up = H5dont_atexit();
  (void)no_clean_up;
  return mutex;
}

struct TypeRow {
  Hdf5Type type;
  std::string_view name;
  uint64_t bytes;
  hid_t file;    // little-endian, as stored
  hid_t memory;  // native
};

// The one list of element types. Built under the lock: the identifiers exist once the library is
// open.
const std::array<TypeRow, 8>& type_table() {
  static const std::array<TypeRow, 8> table = {{
      {Hdf5Type::kU8, "u8", 1, H5T_STD_U8LE, H5T_NATIVE_UINT8},
      {Hdf5Type::kU16, "u16", 2, H5T_STD_U16LE, H5T_NATIVE_UINT16},
      {Hdf5Type::kU32, "u32", 4, H5T_STD_U32LE, H5T_NATIVE_UINT32},
      {Hdf5Type::kU64, "u64", 8, H5T_STD_U64LE, H5T_NATIVE_UINT64},
      {Hdf5Type::kI32, "i32", 4, H5T_STD_I32LE, H5T_NATIVE_INT32},
      {Hdf5Type::kI64, "i64", 8, H5T_STD_I64LE, H5T_NATIVE_INT64},
      {Hdf5Type::kF32, "f32", 4, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT},
      {Hdf5Type::kF64, "f64", 8, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE},
  }};
  return table;
}

const TypeRow& row(Hdf5Type type) {
  const Hdf5Lock lock;
  return type_table()[static_cast<size_t>(type)];
}

herr_t collect(unsigned, const H5E_error2_t* entry, void* out) {
  static_cast<std::vector<std::string>*>(out)->emplace_back(entry->desc ? entry->desc : "");
  return 0;
}

// The library's error stack, innermost reason first.
std::vector<std::string> error_stack() {
  std::vector<std::string> reasons;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &reasons);
  H5Eclear2(H5E_DEFAULT);
  return reasons;
}

// The system's error number that the stack mentions, or 0.
int errno_in(const std::vector<std::string>& reasons) {
  for (const std::string& reason : reasons) {
    const size_t at = reason.find("errno = ");
    if (at != std::string::npos) return std::atoi(reason.c_str() + at + 8);
  }
  return 0;
}

std::string hint(int code) {
  switch (code) {
    case EAGAIN:    // 11
    case EDEADLK:   // 35, which is also EAGAIN elsewhere
    case ENOLCK:    // 37
    case ENOSYS: {  // 38, no locks on this file system
      return "; the file is locked by another program or its file system cannot lock: close the "
             "other program, or set HDF5_USE_FILE_LOCKING=FALSE if nothing writes to the file";
    }
    case ENOSPC:
      return "; the disk is full: free space or choose another place";
    case EDQUOT:
      return "; the disk quota is used up: free space or choose another place";
    case EFBIG:
      return "; the file is larger than the file system or `ulimit -f` allows";
    case EROFS:
      return "; the file system is read-only: choose another place";
    case EACCES:
    case EPERM:
      return "; permission denied: check owner and mode";
    default:
      return "";
  }
}

enum class Access { kRead, kWrite };

[[noreturn]] void fail(const std::string& what, Access access) {
  const std::vector<std::string> reasons = error_stack();
  std::string text = what;
  const int code = errno_in(reasons);
  if (code != 0) {
    text += fmt::format(": {}", std::strerror(code));  // the rest are addresses and times
  } else if (!reasons.empty()) {
    text += fmt::format(" (HDF5: {})", reasons.front());
  }
  text += hint(code);
  throw Error(text, access == Access::kWrite ? ErrorKind::kDisk : ErrorKind::kData);
}

template <class T>
T must(T result, const std::string& what, Access access) {
  if (result < 0) fail(what, access);
  return result;
}

Hdf5Handle own(hid_t id, herr_t (*close)(hid_t), const std::string& what, Access access) {
  must(id, what, access);
  return {id, close};
}

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

Hdf5Lock::Hdf5Lock() {
  library_mutex().lock();
  // Thread-safe builds of the library keep one error handler per thread.
  thread_local bool printing_off = false;
  if (!printing_off) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    printing_off = true;
  }
}

Hdf5Lock::~Hdf5Lock() { library_mutex().unlock(); }

uint64_t size_bytes(Hdf5Type type) { return row(type).bytes; }
std::string_view type_name(Hdf5Type type) { return row(type).name; }

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept
    : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  if (this != &other) {
    close();
    id_ = std::exchange(other.id_, -1);
    close_ = other.close_;
  }
  return *this;
}

Hdf5Handle::~Hdf5Handle() { close(); }

bool Hdf5Handle::close() noexcept {
  if (id_ < 0) return true;
  const Hdf5Lock lock;
  return close_(std::exchange(id_, -1)) >= 0;
}

// ---- datasets
// -------------------------------------------------------------------------------------

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

// ---- files
// ----------------------------------------------------------------------------------------

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
  const TypeRow* found = nullptr;
  for (const TypeRow& candidate : type_table()) {
    if (H5Tequal(type.id(), candidate.file) > 0) found = &candidate;
  }
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

// ---- attributes
// -----------------------------------------------------------------------------------

void Hdf5File::write_scalar(const std::string& object, const std::string& name, int64_t file_type,
                            int64_t memory_type, const void* value) {
  const std::string what = fmt::format("{}: cannot write attribute {} of {}", path_, name, object);
  const Hdf5Handle space = own(H5Screate(H5S_SCALAR), H5Sclose, what, Access::kWrite);
  const Hdf5Handle attribute =
      own(H5Acreate_by_name(handle_.id(), object.c_str(), name.c_str(), file_type, space.id(),
                            H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          H5Aclose, what, Access::kWrite);
  must(H5Awrite(attribute.id(), memory_type, value), what, Access::kWrite);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name,
                               std::string_view value) {
  const Hdf5Lock lock;
  const std::string what = fmt::format("{}: cannot write attribute {} of {}", path_, name, object);
  const Hdf5Handle type = own(H5Tcopy(H5T_C_S1), H5Tclose, what, Access::kWrite);
  // The library has no strings of length 0; padding with zeros makes "" and one zero the same.
  must(H5Tset_size(type.id(), std::max<size_t>(value.size(), 1)), what, Access::kWrite);
  must(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), what, Access::kWrite);
  must(H5Tset_cset(type.id(), H5T_CSET_UTF8), what, Access::kWrite);
  write_scalar(object, name, type.id(), type.id(), value.empty() ? "" : value.data());
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, uint64_t value) {
  const Hdf5Lock lock;
  write_scalar(object, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, int64_t value) {
  const Hdf5Lock lock;
  write_scalar(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, double value) {
  const Hdf5Lock lock;
  write_scalar(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

Hdf5Handle Hdf5File::open_attribute(const std::string& object, const std::string& name) const {
  const std::string where = fmt::format("{}: attribute {} of {}", path_, name, object);
  if (!has_attribute(object, name)) throw Error(where + " is missing");
  Hdf5Handle attribute =
      own(H5Aopen_by_name(handle_.id(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
          H5Aclose, where + ": cannot open", Access::kRead);
  const Hdf5Handle space = own(H5Aget_space(attribute.id()), H5Sclose, where, Access::kRead);
  if (H5Sget_simple_extent_npoints(space.id()) != 1) {
    throw Error(where + ": expected one value");
  }
  return attribute;
}

std::string Hdf5File::read_string(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  const std::string where = fmt::format("{}: attribute {} of {}", path_, name, object);
  const Hdf5Handle attribute = open_attribute(object, name);
  const Hdf5Handle type = own(H5Aget_type(attribute.id()), H5Tclose, where, Access::kRead);
  if (H5Tget_class(type.id()) != H5T_STRING) throw Error(where + ": expected a string");
  if (H5Tis_variable_str(type.id()) > 0) {
    char* text = nullptr;
    must(H5Aread(attribute.id(), type.id(), &text), where + ": cannot read", Access::kRead);
    const std::string value = text ? text : "";
    H5free_memory(text);
    return value;
  }
  std::string value(H5Tget_size(type.id()), '\0');
  must(H5Aread(attribute.id(), type.id(), value.data()), where + ": cannot read", Access::kRead);
  const char padding = H5Tget_strpad(type.id()) == H5T_STR_SPACEPAD ? ' ' : '\0';
  if (padding == '\0') value.resize(std::strlen(value.c_str()));
  while (!value.empty() && value.back() == padding) value.pop_back();
  return value;
}

void Hdf5File::read_number(const std::string& object, const std::string& name, int64_t memory_type,
                           void* out) const {
  const Hdf5Lock lock;
  const std::string where = fmt::format("{}: attribute {} of {}", path_, name, object);
  const Hdf5Handle attribute = open_attribute(object, name);
  const Hdf5Handle type = own(H5Aget_type(attribute.id()), H5Tclose, where, Access::kRead);
  const H5T_class_t wanted = H5Tget_class(memory_type);
  if (H5Tget_class(type.id()) != wanted) {
    throw Error(fmt::format("{}: expected {}, found another type", where,
                            wanted == H5T_INTEGER ? "an integer" : "a floating-point number"));
  }
  must(H5Aread(attribute.id(), memory_type, out), where + ": cannot read", Access::kRead);
  if (wanted != H5T_INTEGER) return;
  // The library clips what does not fit; refuse instead.
  const bool is_signed = H5Tget_sign(type.id()) == H5T_SGN_2;
  const bool want_signed = H5Tget_sign(memory_type) == H5T_SGN_2;
  if (is_signed == want_signed) return;
  int64_t as_signed = 0;
  uint64_t as_unsigned = 0;
  must(H5Aread(attribute.id(), H5T_NATIVE_INT64, &as_signed), where, Access::kRead);
  must(H5Aread(attribute.id(), H5T_NATIVE_UINT64, &as_unsigned), where, Access::kRead);
  if (static_cast<uint64_t>(as_signed) != as_unsigned) {
    throw Error(fmt::format("{}: the value does not fit a {} 64-bit integer", where,
                            want_signed ? "signed" : "unsigned"));
  }
}

uint64_t Hdf5File::read_u64(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  uint64_t value = 0;
  read_number(object, name, H5T_NATIVE_UINT64, &value);
  return value;
}

int64_t Hdf5File::read_i64(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  int64_t value = 0;
  read_number(object, name, H5T_NATIVE_INT64, &value);
  return value;
}

double Hdf5File::read_double(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  double value = 0;
  read_number(object, name, H5T_NATIVE_DOUBLE, &value);
  return value;
}

}  // namespace qstep::data
