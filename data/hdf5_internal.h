// What the files of this HDF5 wrapper share; nobody else includes it, or hdf5.h of the library.
#pragma once

#include <hdf5.h>

#include <string>
#include <string_view>

#include "data/hdf5.h"

namespace qstep::data::hdf5_internal {

struct TypeRow {
  Hdf5Type type;
  std::string_view name;
  uint64_t bytes;
  hid_t file;    // little-endian, as stored
  hid_t memory;  // native
};

// The row of a type in the one list of element types.
const TypeRow* find_type(hid_t file_type);  // null: none of ours
const TypeRow& row(Hdf5Type type);

// What the library was doing: decides the kind of the Error.
enum class Access { kRead, kWrite };

// "; what to do" about an error number of the system, or nothing.
std::string hint(int code);

// Throws Error with `what`, the library's innermost reason, and what to do about it.
[[noreturn]] void fail(const std::string& what, Access access);

template <class T>
T must(T result, const std::string& what, Access access) {
  if (result < 0) fail(what, access);
  return result;
}

inline Hdf5Handle own(hid_t id, herr_t (*close)(hid_t), const std::string& what, Access access) {
  must(id, what, access);
  return {id, close};
}

}  // namespace qstep::data::hdf5_internal
