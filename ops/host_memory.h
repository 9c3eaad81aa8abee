// Memory of the host in whole pages. Large blocks ask for huge pages: fewer misses in the page
// tables' cache where the system grants them (transparent_hugepage = madvise or always).
#pragma once

#include <cstdint>

#include "ops/arena.h"

namespace qstep::ops {

// `bytes` rounded up to pages of 4096, not touched yet. An Error (out of memory) that says what to
// lower where there is not enough.
Buffer allocate_host(int64_t bytes);

}  // namespace qstep::ops
