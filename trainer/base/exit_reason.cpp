#include "trainer/base/exit_reason.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <new>
#include <nlohmann/json.hpp>

#include "data/error.h"

namespace qstep::trainer {
namespace {

using ops::ExitCode;

constexpr std::array kKinds = {
    ExitKind{ExitCode::kOk, "finished", Requeue::kNo, "finished"},
    ExitKind{ExitCode::kInternal, "internal_error", Requeue::kNo, "internal error: a bug"},
    ExitKind{ExitCode::kPreempted, "preempted", Requeue::kYes,
             "stopped by a signal, checkpoint saved"},
    ExitKind{ExitCode::kTimeLimit, "time_limit", Requeue::kYes,
             "time limit reached, checkpoint saved"},
    ExitKind{ExitCode::kInterrupted, "interrupted", Requeue::kYes,
             "second signal before a save could finish; older checkpoints are valid"},
    ExitKind{ExitCode::kConfig, "config_error", Requeue::kNo, "configuration or command line"},
    ExitKind{ExitCode::kData, "data_error", Requeue::kNo, "data missing, damaged or unfit"},
    ExitKind{ExitCode::kCheckpoint, "checkpoint_damaged", Requeue::kNo,
             "checkpoint damaged, no usable older one"},
    ExitKind{ExitCode::kDisk, "disk_full", Requeue::kNo,
             "disk full or not writable; start again after cleaning up"},
    ExitKind{ExitCode::kNonFinite, "non_finite", Requeue::kNo,
             "too many steps in a row with NaN or Inf"},
    ExitKind{ExitCode::kCorruption, "corruption_suspected", Requeue::kYes,
             "silent corruption suspected; start again on other nodes"},
    ExitKind{ExitCode::kSelfTest, "self_test_failed", Requeue::kNo,
             "a kernel computed wrong results; try another node"},
    ExitKind{ExitCode::kPeerDied, "peer_died", Requeue::kYes, "another rank died"},
    ExitKind{ExitCode::kHang, "hang", Requeue::kYes, "a collective did not finish in time"},
    ExitKind{ExitCode::kGpu, "gpu_error", Requeue::kYes, "GPU error; start again on other nodes"},
    ExitKind{ExitCode::kOutOfMemory, "out_of_memory", Requeue::kNo,
             "out of memory; lower train.micro_batch"},
};

}  // namespace

std::span<const ExitKind> exit_kinds() { return kKinds; }

const ExitKind& exit_kind(ops::ExitCode code) {
  for (const ExitKind& kind : kKinds) {
    if (kind.code == code) return kind;
  }
  return exit_kind(ExitCode::kInternal);
}

ExitCode exit_code_of(const std::exception& error) {
  if (const auto* ours = dynamic_cast<const ops::Error*>(&error)) return ours->code();
  if (const auto* of_data = dynamic_cast<const data::Error*>(&error)) {
    return of_data->kind == data::ErrorKind::kDisk ? ExitCode::kDisk : ExitCode::kData;
  }
  const bool no_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  return no_memory ? ExitCode::kOutOfMemory : ExitCode::kInternal;
}

std::string error_text(const std::exception& error) {
  switch (exit_code_of(error)) {
    case ExitCode::kInternal:
      return fmt::format("error: internal error, please report: {}", error.what());
    case ExitCode::kOutOfMemory:
      if (dynamic_cast<const ops::Error*>(&error) != nullptr) {
        return fmt::format("error: out of memory: {}", error.what());
      }
      return "error: out of memory: lower train.micro_batch, train.seq_len or the model's size";
    default:
      return fmt::format("error: {}", error.what());
  }
}

std::string to_json(const ExitReason& reason) {
  const ExitKind& kind = exit_kind(reason.code);
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  nlohmann::ordered_json json;
  json["code"] = static_cast<int>(reason.code);
  json["name"] = kind.name;
  json["requeue"] = kind.requeue == Requeue::kYes;
  json["step"] = reason.step;
  json["time"] = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now));
  json["rank"] = reason.rank;
  json["host"] = host_name();
  json["what"] = reason.what;
  json["last_checkpoint"] = reason.last_checkpoint;
  json["restart_count"] = reason.restart_count;
  json["config_hash"] = reason.config_hash;
  // Error texts may quote bytes of damaged files.
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

}  // namespace qstep::trainer
