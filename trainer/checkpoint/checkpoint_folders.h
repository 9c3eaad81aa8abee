// Names of the folders under checkpoints/: which are checkpoints, which are left-overs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qstep::trainer {

inline constexpr const char* kLatestFile = "latest";
inline constexpr const char* kTemporaryMark = ".tmp-";  // a save in progress, or a killed one
inline constexpr const char* kOldMark = ".old-";        // replaced by a new save of the same step
inline constexpr const char* kDeletedMark = ".del-";    // being removed

// "step-00000100"; more digits when needed.
std::string step_folder(int64_t step);

enum class FolderKind : uint8_t { kCheckpoint, kTemporary, kOld, kDeleted };

struct FolderName {
  int64_t step = 0;
  FolderKind kind = FolderKind::kCheckpoint;
};

// Nothing for names that are not ours.
std::optional<FolderName> parse_folder_name(std::string_view name);

}  // namespace qstep::trainer
