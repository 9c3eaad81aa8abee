#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "data/hdf5_internal.h"

namespace qstep::data {

using namespace hdf5_internal;

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

uint64_t Hdf5File::read_u64(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  const std::string where = fmt::format("{}: attribute {} of {}", path_, name, object);
  const Hdf5Handle attribute = open_attribute(object, name);
  const Hdf5Handle type = own(H5Aget_type(attribute.id()), H5Tclose, where, Access::kRead);
  if (H5Tget_class(type.id()) != H5T_INTEGER) {
    throw Error(fmt::format("{}: expected an integer, found another type", where));
  }
  uint64_t value = 0;
  must(H5Aread(attribute.id(), H5T_NATIVE_UINT64, &value), where + ": cannot read", Access::kRead);
  if (H5Tget_sign(type.id()) != H5T_SGN_2) return value;
  // The library clips what does not fit; refuse instead.
  int64_t as_signed = 0;
  must(H5Aread(attribute.id(), H5T_NATIVE_INT64, &as_signed), where, Access::kRead);
  if (static_cast<uint64_t>(as_signed) != value) {
    throw Error(fmt::format("{}: the value does not fit an unsigned 64-bit integer", where));
  }
  return value;
}

}  // namespace qstep::data
