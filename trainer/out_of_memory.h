// Who holds what where memory ran out, and what to lower.
#pragma once

#include <concepts>
#include <span>

#include "ops/error.h"
#include "trainer/trainer.h"

namespace qstep::trainer {

// The error with the largest owners of a rank's memory, largest first, and what makes the largest
// of them smaller.
ops::Error with_owners(const ops::Error& error, std::span<const MemoryRow> rows);

// Does f(); where memory runs out in it, the error names the owners. rows(): the rank's.
template <std::invocable F, std::invocable Rows>
auto naming_owners(F&& f, Rows&& rows) {
  try {
    return f();
  } catch (const ops::Error& error) {
    if (error.code() != ops::ExitCode::kOutOfMemory) throw;
    throw with_owners(error, rows());
  }
}

}  // namespace qstep::trainer
