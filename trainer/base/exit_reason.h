// Exit codes with their names and what a scheduler should do: the one table, for exit_reason.json,
// help texts and documents.
#pragma once

#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <string_view>

#include "ops/error.h"

namespace qstep::trainer {

enum class Requeue : uint8_t { kNo, kYes };

struct ExitKind {
  ops::ExitCode code;
  std::string_view name;
  Requeue requeue;           // whether starting the same command again can help
  std::string_view meaning;  // one line
};

std::span<const ExitKind> exit_kinds();
const ExitKind& exit_kind(ops::ExitCode code);

// The code with which an exception that reached the top ends the process.
ops::ExitCode exit_code_of(const std::exception& error);

// Of several ranks: that another one's end was noticed, not what it ended for.
constexpr bool is_symptom(ops::ExitCode code) {
  return code == ops::ExitCode::kPeerDied || code == ops::ExitCode::kHang;
}

// The error as a user reads it: "error: ...", with what to do about the kinds that do not say it.
std::string error_text(const std::exception& error);

// What a process says about its end. Host and time are added when it is written.
struct ExitReason {
  ops::ExitCode code = ops::ExitCode::kOk;
  int64_t step = 0;
  int64_t rank = 0;
  std::string what;             // the error's text; empty when all went well
  std::string last_checkpoint;  // path; empty when there is none
  int64_t restart_count = 0;
  std::string config_hash;
};

// JSON object with code, name, requeue, step, time (UTC, ISO 8601), rank, host, what,
// last_checkpoint, restart_count, config_hash.
std::string to_json(const ExitReason& reason);

std::string host_name();

}  // namespace qstep::trainer
