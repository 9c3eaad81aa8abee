// One error type and one way to raise it. Caught once, in main, which ends every rank with its
// code.
#pragma once

#ifndef __CUDACC__  // for the messages of those who throw; nvcc 13 does not compile fmt 9
#include <fmt/format.h>
#endif

#include <concepts>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace qstep::ops {

// Process exit codes; trainer/README.md documents them for users.
enum class ExitCode : int {
  kOk = 0,
  kInternal = 1,
  kPreempted = 10,    // checkpoint saved
  kTimeLimit = 11,    // checkpoint saved
  kInterrupted = 12,  // second signal: no save
  kConfig = 20,
  kData = 21,
  kCheckpoint = 22,
  kDisk = 23,
  kNonFinite = 30,
  kCorruption = 31,
  kSelfTest = 32,
  kPeerDied = 40,
  kHang = 41,
  kGpu = 50,
  kOutOfMemory = 51,
};

// what() says what went wrong, where, what was expected, what was found, and what to do about it.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Throws an internal Error "<what> (expected ..., found ...) at file:line" unless `condition`
// holds. For broken promises between our own rooms; users' mistakes get an Error of their own kind.
[[noreturn]] void throw_broken(std::string_view what, std::source_location where);
inline void check(bool condition, std::string_view what,
                  std::source_location where = std::source_location::current()) {
  if (!condition) throw_broken(what, where);
}

inline std::string text_of(std::string_view x) { return std::string(x); }
template <std::integral T>
std::string text_of(T x) {
  return std::to_string(x);
}

[[noreturn]] void throw_unequal(const std::string& expected, const std::string& found,
                                std::string_view what, std::source_location where);
template <class Expected, class Found>
void check_equal(const Expected& expected, const Found& found, std::string_view what,
                 std::source_location where = std::source_location::current()) {
  if (!(expected == found)) throw_unequal(text_of(expected), text_of(found), what, where);
}

}  // namespace qstep::ops
