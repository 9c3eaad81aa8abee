#include "ops/host_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "ops/error.h"

namespace qstep::ops {

namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = 2 << 20;
// Of a smaller block, too large a part lies beyond its last whole huge page.
constexpr int64_t kSmallestHuge = 2 * kHugePage;

int64_t round_down(int64_t bytes, int64_t unit) { return bytes / unit * unit; }

}  // namespace

Buffer allocate_host(int64_t bytes) {
  const int64_t rounded = std::max(round_down(bytes + kPage - 1, kPage), kPage);
  const bool huge = rounded >= kSmallestHuge;
  void* data = nullptr;
  if (::posix_memalign(&data, static_cast<size_t>(huge ? kHugePage : kPage),
                       static_cast<size_t>(rounded)) != 0) {
    throw Error(ExitCode::kOutOfMemory, fmt::format("the host has no {:.2f} GiB of memory left",
                                                    static_cast<double>(bytes) / 0x1p30));
  }
  // Whole huge pages only: the rest would take up to 2 MiB that nobody uses. A refusal costs speed
  // and nothing else.
  if (huge) madvise(data, static_cast<size_t>(round_down(rounded, kHugePage)), MADV_HUGEPAGE);
  return Buffer(data, rounded, std::free);
}

}  // namespace qstep::ops
