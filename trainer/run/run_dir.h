// The folder of a run: where its files are, and the lock that keeps a second process out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "trainer/base/exit_reason.h"

namespace qstep::trainer {

// The numeric ledger of a run folder, which need not be locked to be read.
inline std::string ledger_jsonl(const std::string& folder) { return folder + "/ledger.jsonl"; }

// Its checkpoints.
inline std::string checkpoints_of(const std::string& folder) { return folder + "/checkpoints"; }

inline std::string exit_reason_of(const std::string& folder) {
  return folder + "/exit_reason.json";
}
bool has_exit_reason(const std::string& folder);
// Replaces <folder>/exit_reason.json as a whole and durably: also for a rank that has not locked
// it.
void write_exit_reason(const std::string& folder, const ExitReason& reason);

class RunDir {
 public:
  // Creates the folder and locks <path>/.lock until the object (or the process, however it ends) is
  // gone. Error (config) when a live process holds it, Error (disk) when the folder cannot be made.
  explicit RunDir(const std::string& path);
  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;
  ~RunDir();

  const std::string& path() const { return path_; }
  std::string config_toml() const { return path_ + "/config.toml"; }
  std::string recipe_toml() const { return path_ + "/recipe.toml"; }
  std::string metrics_jsonl() const { return path_ + "/metrics.jsonl"; }
  std::string ledger_jsonl() const { return trainer::ledger_jsonl(path_); }
  std::string checkpoints() const { return checkpoints_of(path_); }
  std::string exit_reason() const { return exit_reason_of(path_); }

  // How often the folder was taken before, by this or another process: 0 for a new run.
  int64_t restart_count() const { return restart_count_; }

  // For run.resume=never: Error (config) when the folder holds checkpoints or metrics of an earlier
  // run.
  void require_fresh() const;

  // They replace the file as a whole and are durable when they return.
  void write_config(std::string_view toml) const;
  void write_recipe(std::string_view toml) const;
  void write_exit_reason(const ExitReason& reason) const {
    trainer::write_exit_reason(path_, reason);
  }
  void remove_exit_reason() const;

 private:
  std::string path_;
  int lock_ = -1;  // file descriptor
  int64_t restart_count_ = 0;
};

}  // namespace qstep::trainer
