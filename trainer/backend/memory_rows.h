// Who holds how much memory: the rows of every table of memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ops/arena.h"

namespace qstep::trainer {

struct MemoryRow {
  std::string owner;
  int64_t bytes = 0;
};

// What was laid out on an arena, by its owners, largest first.
std::vector<MemoryRow> memory_rows(const ops::Arena& arena);

// The rows of both, of unlike owners, largest first.
std::vector<MemoryRow> joined_rows(std::vector<MemoryRow> rows, std::span<const MemoryRow> more);

int64_t total_bytes(std::span<const MemoryRow> rows);

}  // namespace qstep::trainer
