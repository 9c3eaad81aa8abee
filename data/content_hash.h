// XXH3-128 over a stream of bytes. Detects accidents, not tampering.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

struct XXH3_state_s;

namespace qstep::data {

class ContentHash {
 public:
  ContentHash();
  void add(const void* bytes, uint64_t n);
  std::string hex() const;  // 32 digits, high half first, of everything added so far

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace qstep::data
