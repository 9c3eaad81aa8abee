#include "data/content_hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace qstep::data {

void ContentHash::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

ContentHash::ContentHash() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

void ContentHash::add(const void* bytes, uint64_t n) {
  if (n > 0) XXH3_128bits_update(state_.get(), bytes, n);
}

std::string ContentHash::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace qstep::data
