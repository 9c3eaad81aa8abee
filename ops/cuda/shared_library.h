// A library that is opened when it is first needed, so that the binary also starts where it is
// missing.
#pragma once

#include <initializer_list>
#include <string>

namespace qstep::ops {

class SharedLibrary {
 public:
  // Tries the files in turn; an Error (gpu) that names the first and says `how_to_get` it where
  // none opens. Never closed: what such libraries allocate while loading stays theirs.
  SharedLibrary(std::initializer_list<const char*> files, const char* how_to_get);

  // function = the library's function of that name; an Error (gpu) where it has none.
  template <class F>
  void find(F*& function, const char* name) const {
    function = reinterpret_cast<F*>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;

  void* handle_ = nullptr;
  std::string file_;
};

// What becomes of a list of a library's functions, row(member, function); for each: members of a
// struct, with the types of the library's header; and where `from` has them, in `found`.
#define QSTEP_LIBRARY_MEMBER(member, function) decltype(&::function) member = nullptr
#define QSTEP_LIBRARY_FIND(member, function) from.find(found.member, #function)

}  // namespace qstep::ops
