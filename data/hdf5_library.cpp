#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include "data/hdf5_internal.h"

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

// The one list of element types. Built under the lock: the identifiers exist once the library is
// open.
const std::array<hdf5_internal::TypeRow, 8>& type_table() {
  static const std::array<hdf5_internal::TypeRow, 8> table = {{
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

}  // namespace

namespace hdf5_internal {

const TypeRow& row(Hdf5Type type) {
  const Hdf5Lock lock;
  return type_table()[static_cast<size_t>(type)];
}

const TypeRow* find_type(hid_t file_type) {
  const Hdf5Lock lock;
  for (const TypeRow& candidate : type_table()) {
    if (H5Tequal(file_type, candidate.file) > 0) return &candidate;
  }
  return nullptr;
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

}  // namespace hdf5_internal

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

uint64_t size_bytes(Hdf5Type type) { return hdf5_internal::row(type).bytes; }
std::string_view type_name(Hdf5Type type) { return hdf5_internal::row(type).name; }

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

}  // namespace qstep::data
