// The tokens of a batch in the order of their rows in a table, those of one row in the order of
// their positions: what lets an embedding's gradient be summed without atomics, with the same bits
// on every run. A stable radix sort by digits of eight bits. In a chunk of entries each of 256
// threads counts, and later places, the entries of one digit, reading them all in order: no thread
// waits for another and nothing depends on who comes first.
#pragma once

#include <cstdint>

#include "ops/error.h"
#include "ops/team.h"

namespace qstep::ops::device {

inline constexpr int kDigits = 256;
inline constexpr int64_t kEntriesPerChunk = 1024;

constexpr int64_t n_entry_chunks(int64_t n) {
  return (n + kEntriesPerChunk - 1) / kEntriesPerChunk;
}

// Row in the upper half, position in the lower.
QSTEP_HD inline int64_t entry_row(uint64_t entry) { return static_cast<int64_t>(entry >> 32); }
QSTEP_HD inline int64_t entry_position(uint64_t entry) {
  return static_cast<int64_t>(entry & 0xFFFFFFFFu);
}

// Tokens without a row in the table go last, as row n_rows.
struct MakeEntries {
  uint64_t* entries;
  const int32_t* tokens;
  int64_t first_token, n_rows;

  QSTEP_HD void operator()(int64_t n) const {
    const int64_t row = tokens[n] - first_token;
    const int64_t key = row >= 0 && row < n_rows ? row : n_rows;
    entries[n] = static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(n);
  }
};

// The entries of one chunk; counts[d, chunk] belongs to digit d of it.
struct EntryChunk {
  const uint64_t* entries;
  int64_t n;
  int shift;

  template <class F>
  QSTEP_HD void each_of_digit(int64_t chunk, int64_t digit, const F& f) const {
    const int64_t first = chunk * kEntriesPerChunk;
    const int64_t last = first + kEntriesPerChunk < n ? first + kEntriesPerChunk : n;
    for (int64_t i = first; i < last; ++i) {
      const uint64_t entry = entries[i];
      if (static_cast<int64_t>(entry >> shift & (kDigits - 1)) == digit) f(entry);
    }
  }
};

struct CountDigits {
  EntryChunk in;
  int32_t* counts;
  int64_t n_chunks;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t chunk) const {
    team.each(kDigits, [&](int64_t d) {
      int32_t count = 0;
      in.each_of_digit(chunk, d, [&](uint64_t) { ++count; });
      counts[d * n_chunks + chunk] = count;
    });
  }
};

// counts become the places of each digit's first entry of each chunk. One team.
struct PlaceDigits {
  int32_t *counts, *totals;  // [256, chunks], [256]
  int64_t n_chunks;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t) const {
    team.each(kDigits, [&](int64_t d) {
      int32_t total = 0;
      for (int64_t c = 0; c < n_chunks; ++c) total += counts[d * n_chunks + c];
      totals[d] = total;
    });
    team.sync();
    team.each(kDigits, [&](int64_t d) {
      int32_t place = 0;
      for (int64_t e = 0; e < d; ++e) place += totals[e];
      for (int64_t c = 0; c < n_chunks; ++c) {
        const int32_t count = counts[d * n_chunks + c];
        counts[d * n_chunks + c] = place;
        place += count;
      }
    });
  }
};

struct ScatterDigits {
  EntryChunk in;
  uint64_t* out;
  const int32_t* places;
  int64_t n_chunks;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t chunk) const {
    team.each(kDigits, [&](int64_t d) {
      int32_t place = places[d * n_chunks + chunk];
      in.each_of_digit(chunk, d, [&](uint64_t entry) { out[place++] = entry; });
    });
  }
};

// The entries in order, in scratch memory: the only request of a call.
template <class Launch>
const uint64_t* sort_tokens(const Launch& launch, const int32_t* tokens, int64_t n,
                            int64_t first_token, int64_t n_rows) {
  check(n <= INT32_MAX && n_rows < INT32_MAX, "sort_tokens: too many tokens or rows");
  const int64_t n_chunks = n_entry_chunks(n);
  const int64_t n_counts = kDigits * n_chunks + kDigits;
  uint64_t* from = launch.template scratch<uint64_t>(2 * n + (n_counts + 1) / 2);
  uint64_t* to = from + n;
  auto* const counts = reinterpret_cast<int32_t*>(to + n);
  launch.each(n, MakeEntries{from, tokens, first_token, n_rows});
  for (int shift = 32; n_rows >> (shift - 32) != 0; shift += 8) {
    const EntryChunk in{from, n, shift};
    launch.teams(n_chunks, kDigits, 0, CountDigits{in, counts, n_chunks});
    launch.teams(1, kDigits, 0, PlaceDigits{counts, counts + kDigits * n_chunks, n_chunks});
    launch.teams(n_chunks, kDigits, 0, ScatterDigits{in, to, counts, n_chunks});
    uint64_t* const sorted = to;
    to = from;
    from = sorted;
  }
  return from;
}

}  // namespace qstep::ops::device
