// Who holds what where memory ran out, and what to lower.
#pragma once

#include <concepts>
#include <span>
#include <string_view>

#include "ops/error.h"
#include "trainer/backend/memory_rows.h"

namespace qstep::trainer {

// What the memory was for decides what its user can lower: a run's configuration (train, bench,
// compare), or the options of qstep eval and of qstep generate.
enum class MemoryUse : uint8_t { kTraining, kEvaluation, kGeneration };

// The error with the largest owners of a rank's memory, largest first, and what makes the largest
// of them smaller.
ops::Error with_owners(const ops::Error& error, std::span<const MemoryRow> rows,
                       MemoryUse use = MemoryUse::kTraining);

// Does f(); where memory runs out in it, the error names the owners. rows(): the rank's.
template <std::invocable F, std::invocable Rows>
auto naming_owners(F&& f, Rows&& rows, MemoryUse use = MemoryUse::kTraining) {
  try {
    return f();
  } catch (const ops::Error& error) {
    if (error.code() != ops::ExitCode::kOutOfMemory) throw;
    throw with_owners(error, rows(), use);
  }
}

// Does f() while two models are in memory; where memory runs out in it, the error, which names the
// owners of one of them, says so. what_to_do: how to have one at a time.
template <std::invocable F>
auto naming_both(F&& f, std::string_view one, std::string_view other, std::string_view what_to_do) {
  try {
    return f();
  } catch (const ops::Error& error) {
    if (error.code() != ops::ExitCode::kOutOfMemory) throw;
    throw ops::Error(error.code(), fmt::format("{}\n  {} and {} are in memory at once: {}",
                                               error.what(), one, other, what_to_do));
  }
}

}  // namespace qstep::trainer
